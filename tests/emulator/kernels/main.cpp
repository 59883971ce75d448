// Runs the cases named on the command line, one after another; without any, lists them all.
#include <cstring>

#include "harness.h"

namespace {

const Case* find(const char* name) {
  for (const Case& each : cases())
    if (std::strcmp(name, each.name) == 0) return &each;
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2)
    for (const Case& each : cases()) std::puts(each.name);
  for (int i = 1; i < argc; ++i) {
    const Case* found = find(argv[i]);
    if (!found) reject("there is no such case: %s", argv[i]);
    std::fprintf(stderr, "%s\n", found->name);
    found->body();
  }
}
