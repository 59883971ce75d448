// Takes arguments by name and refuses, in the words of the op, what does not fit.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "array/array.h"
#include "core/dtype.h"
#include "core/formats/blocks.h"

namespace momentum::array {

struct Range {
  double low, high;
  bool high_open = false;
};

inline constexpr Range kAnyInteger{-0x1p53, 0x1p53};

// "name[i]", as messages call an element of a list.
std::string label(const std::string& name, size_t i);

class Reader {
 public:
  // `op` without the trailing underscore.
  Reader(const char* op, const pybind11::dict& arguments) : op_(op), arguments_(arguments) {}

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    std::ostringstream message;
    message << "momentum.array." << op_ << "_: ";
    (message << ... << parts);
    throw pybind11::value_error(message.str());
  }

  size_t length(const std::string& name) const { return pybind11::len(argument(name)); }
  bool given(const std::string& name) const { return !argument(name).is_none(); }
  double number(const std::string& name, Range range) const;
  int64_t integer(const std::string& name, Range range) const;
  std::vector<int64_t> integers(const std::string& name) const;
  // A number, or a sequence of one number or of `count`; always returns `count`.
  std::vector<double> numbers(const std::string& name, int64_t count, Range range) const;
  uint64_t seed(const std::string& name) const;
  std::vector<uint64_t> seeds(const std::string& name, int64_t count) const;
  // Refuses numbers of elements that no block has.
  void check_block(const std::string& name, int64_t block) const;

  // A list of `count` arrays, or also none where `optional`; `unit` says why so many.
  std::vector<Array> arrays(const std::string& name, int64_t count, bool optional, bool written,
                            const char* unit = "one for each of params");
  Array array(const std::string& name, bool written);
  // All arrays taken so far must be on this device; it is that of the first one.
  dlpack::Device device() const { return device_; }

  // What arrays must be: of a floating point dtype; of one that scales may have; of this dtype and number of elements, whatever
  // their shape; codes of so many bytes.
  DType storage(const std::string& name, const Array& array, bool allow_float64) const;
  DType scale_dtype(const std::string& name, const Array& scales, const StateFormat& format) const;
  void expect_vector(const std::string& name, const Array& array, DType dtype, int64_t numel) const;
  void expect_codes(const std::string& name, const Array& array, int64_t bytes) const;

  // Refuses arrays that are written and share memory with another one taken.
  void check_overlap() const;

 private:
  struct Taken {
    uintptr_t begin, end;
    std::string name;
    bool written;
  };

  pybind11::handle argument(const std::string& name) const { return arguments_[name.c_str()]; }
  uint64_t seed_of(const std::string& name, pybind11::handle value) const;
  double checked(const std::string& name, pybind11::handle value, Range range) const;
  int64_t checked_integer(const std::string& name, pybind11::handle value, Range range) const;
  Array take(const std::string& name, pybind11::handle object, bool written);

  const char* op_;
  const pybind11::dict& arguments_;
  dlpack::Device device_{};
  bool any_ = false;
  std::vector<Taken> taken_;
};

}  // namespace momentum::array
