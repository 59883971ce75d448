// The plain reductions, registered like a rule.
#include "core/statistic.h"

#include "subject.h"

namespace momentum::sanitizers {
namespace {

const Registration<rules::Statistic> registration;

}  // namespace
}  // namespace momentum::sanitizers
