#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "report.h"
#include "sanitizers.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace momentum::emulator {

namespace {

// The fiber that called switch_fiber last: the one to tell ASan about once we are on the new stack.
Fiber* departed = nullptr;
Fiber* arriving = nullptr;

}  // namespace

Stack allocate_stack() {
  constexpr std::size_t bytes = 512 * 1024;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* mapping = mmap(nullptr, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED || mprotect(mapping, page, PROT_NONE) != 0) fail("cannot allocate a stack");
  return {static_cast<char*>(mapping) + page, bytes};
}

void adopt_caller(Fiber& fiber) {
  fiber.stack = {};
  if (under_tsan()) fiber.tsan_fiber = __tsan_get_current_fiber();
}

void entered() {
  if (!__sanitizer_finish_switch_fiber) return;
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(arriving->asan_fake_stack, &bottom, &bytes);
  if (!departed->stack.bottom) departed->stack = {static_cast<const char*>(bottom), bytes};
}

#if defined(__x86_64__)

// Saves the callee-saved registers on the current stack, stores its pointer, and restores those of the other.
extern "C" void momentum_emulator_switch(void** save, void* resume);
asm(R"(
.text
.p2align 4
.globl momentum_emulator_switch
.hidden momentum_emulator_switch
.type momentum_emulator_switch, @function
momentum_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size momentum_emulator_switch, . - momentum_emulator_switch
)");

void prepare(Fiber& fiber, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(const_cast<char*>(fiber.stack.bottom) + fiber.stack.bytes);
  *--top = nullptr;  // the entry's return address: ends backtraces, and aligns the stack as a call would
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  fiber.stack_pointer = top;
}

static void jump(Fiber& from, Fiber& to) { momentum_emulator_switch(&from.stack_pointer, to.stack_pointer); }

#else

void prepare(Fiber& fiber, void (*entry)()) {
  auto* context = fiber.stack_pointer ? static_cast<ucontext_t*>(fiber.stack_pointer) : new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = const_cast<char*>(fiber.stack.bottom);
  context->uc_stack.ss_size = fiber.stack.bytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  fiber.stack_pointer = context;
}

static void jump(Fiber& from, Fiber& to) {
  if (!from.stack_pointer) from.stack_pointer = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(from.stack_pointer), static_cast<ucontext_t*>(to.stack_pointer));
}

#endif

void switch_fiber(Fiber& from, Fiber& to, bool forever) {
  departed = &from;
  arriving = &to;
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(forever ? nullptr : &from.asan_fake_stack, to.stack.bottom, to.stack.bytes);
  constexpr unsigned without_synchronisation = 1;
  if (under_tsan()) __tsan_switch_to_fiber(to.tsan_fiber, without_synchronisation);
  jump(from, to);
  entered();
}

}  // namespace momentum::emulator
