#include "torch/schema.h"

#include <sstream>

namespace momentum::ops {

std::string step_schema(const RuleDescription& rule) {
  std::ostringstream s;
  char alias = 'a';
  const auto written_list = [&](const char* argument) { s << "Tensor(" << alias++ << "!)[] " << argument; };
  s << rule.name << "_(";
  written_list("params");
  s << ", Tensor[] grads";
  for (int k = 0; k < rule.state_count; ++k) {
    s << ", ";
    written_list(rule.states[k].name);
  }
  for (const char* argument : {"scales", "residuals", "ema_params", "scalars"}) {
    s << ", ";
    written_list(argument);
  }
  for (const char* argument : {"steps", "totals"}) s << ", Tensor(" << alias++ << "!) " << argument;
  s << ", *, float[] lr, float[] weight_decay";
  s.precision(17);
  for (int k = 0; k < rule.hyper_count; ++k) {
    const HyperInfo& hyper = rule.hypers[k];
    s << ", ";
    switch (hyper.kind) {
      case HyperKind::kFloat:
        s << "float " << hyper.name << '=' << std::showpoint << hyper.value << std::noshowpoint;
        break;
      case HyperKind::kInt:
        s << "int " << hyper.name << '=' << int64_t(hyper.value);
        break;
      case HyperKind::kBool:
        s << "bool " << hyper.name << '=' << (hyper.value != 0 ? "True" : "False");
        break;
    }
  }
  s << ", Tensor? lr_tensor=None, Tensor? weight_decay_tensor=None";
  for (int k = 0; k < rule.hyper_count; ++k) {
    if (rule.hypers[k].tensor) s << ", Tensor? " << rule.hypers[k].name << "_tensor=None";
  }
  s << ", Tensor? grad_scale=None, Tensor? found_inf=None, int decay=0, float max_lr=1.0, bool maximize=False, int cautious=0"
       ", int residual=0, int rounding=0, int[] seeds=[0], int[] shards=[], float ema_decay=0.0, int[] state_formats=[], int "
       "perpendicular=0, int stage=-1) -> ()";
  return s.str();
}

}  // namespace momentum::ops
