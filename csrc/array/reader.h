// Takes arguments by name and refuses, in the words of the op, what does not fit.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "array/array.h"
#include "core/dtype.h"

namespace momentum::array {

struct Range {
  double low, high;
  bool high_open = false;
};

class Reader {
 public:
  Reader(const char* rule, const pybind11::dict& arguments) : rule_(rule), arguments_(arguments) {}

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    std::ostringstream message;
    message << "momentum.array." << rule_ << "_: ";
    (message << ... << parts);
    throw pybind11::value_error(message.str());
  }

  size_t length(const std::string& name) const { return pybind11::len(argument(name)); }
  bool given(const std::string& name) const { return !argument(name).is_none(); }
  double number(const std::string& name, Range range) const;
  int64_t integer(const std::string& name, Range range) const;
  // A number, or a sequence of one number or of `count`; always returns `count`.
  std::vector<double> numbers(const std::string& name, int64_t count, Range range) const;
  std::vector<uint64_t> seeds(const std::string& name, int64_t count) const;

  // A list of `count` arrays, or also none where `optional`.
  std::vector<Array> arrays(const std::string& name, int64_t count, bool optional, bool written);
  Array array(const std::string& name, bool written);
  // All arrays taken so far must be on this device; it is that of the first one.
  dlpack::Device device() const { return device_; }

  // Refuses arrays that are written and share memory with another one taken.
  void check_overlap() const;

 private:
  struct Taken {
    uintptr_t begin, end;
    std::string name;
    bool written;
  };

  pybind11::handle argument(const std::string& name) const { return arguments_[name.c_str()]; }
  double checked(const std::string& name, pybind11::handle value, Range range) const;
  Array take(const std::string& name, pybind11::handle object, bool written);

  const char* rule_;
  const pybind11::dict& arguments_;
  dlpack::Device device_{};
  bool any_ = false;
  std::vector<Taken> taken_;
};

}  // namespace momentum::array
