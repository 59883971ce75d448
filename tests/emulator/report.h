// How the emulator refuses to go on.
#pragma once

#include <source_location>
#include <string>

namespace momentum::emulator {

// Prints the message with the kernel, block and thread in which it arose, and aborts.
[[noreturn]] void fail(const std::string& message);

// For when no thread of the block can run: who waits where, and aborts.
[[noreturn]] void report_deadlock();

// "kernel.cu:12"
std::string place(const std::source_location& where);

}  // namespace momentum::emulator
