// A program of named cases, one of which it runs.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../../csrc/cuda/simt.h"

struct Case {
  const char* name;
  void (*body)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Register {
  Register(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

// Fails the case that runs.
template <class... Values>
[[noreturn]] void reject(const char* format, Values... values) {
  std::fprintf(stderr, format, values...);
  std::fprintf(stderr, "\n");
  std::exit(1);
}

// The first element that differs, compared bit by bit as numbers are.
template <class T>
void expect_equal(const char* what, const std::vector<T>& actual, const std::vector<T>& expected) {
  if (actual.size() != expected.size()) reject("%s: %zu elements, not %zu", what, actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (!(actual[i] == expected[i]))
      reject("%s[%zu] is %g, not %g", what, i, static_cast<double>(actual[i]), static_cast<double>(expected[i]));
  }
}

template <class T>
void expect(const char* what, T actual, T expected) {
  expect_equal(what, std::vector<T>{actual}, std::vector<T>{expected});
}

// Launches on the default stream and insists on success.
template <class Kernel, class... Arguments>
void launch(Kernel kernel, dim3 grid, dim3 block, std::size_t shared_bytes, Arguments... arguments) {
  const cudaError_t error = momentum::simt::launch(kernel, grid, block, shared_bytes, nullptr, arguments...);
  if (error != cudaSuccess) reject("launch: %s", cudaGetErrorString(error));
}
