// Shared memory: found, poisoned, and given out.
#pragma once

#include <cstddef>

namespace momentum::emulator {

// Prepares all __shared__ variables and the dynamic shared memory for the next block by filling them with 0xff: NaN in
// every floating format, so that nothing a block did not write itself is read as something sensible.
void renew_shared_memory(char* dynamic, std::size_t dynamic_bytes);

// Exactly as many bytes as the launch asked for, so that ASan sees the first byte beyond, and aligned to no more than
// the 16 bytes that CUDA promises.
class SharedAllocation {
 public:
  explicit SharedAllocation(std::size_t bytes);
  ~SharedAllocation();
  SharedAllocation(const SharedAllocation&) = delete;
  SharedAllocation& operator=(const SharedAllocation&) = delete;
  char* data() const { return storage_ + 16; }

 private:
  char* storage_;
};

}  // namespace momentum::emulator
