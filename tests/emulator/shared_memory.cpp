// A __shared__ variable is a static whose mangled name carries the ABI tag momentum_shared (see language.h). That name
// survives in the symbol table for every kind of kernel, templates included, where a section attribute would be
// dropped; and it leaves the variable an ordinary global, which ASan surrounds with red zones.
#include "shared_memory.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "report.h"
#include "sanitizers.h"
#include "scheduler.h"

namespace momentum::emulator {

namespace {

constexpr std::size_t max_static_shared_bytes = 48 * 1024;
constexpr std::string_view tag = "B15momentum_shared";

struct Variable {
  char* address;
  std::size_t bytes;
};

// A file mapped for reading.
class File {
 public:
  explicit File(const char* path) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) descriptor = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);  // a program found through PATH
    struct stat status{};
    if (descriptor < 0 || fstat(descriptor, &status) != 0) fail(std::string("cannot read ") + path);
    bytes_ = static_cast<std::size_t>(status.st_size);
    void* mapping = mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    close(descriptor);
    if (mapping == MAP_FAILED) fail(std::string("cannot map ") + path);
    data_ = static_cast<const char*>(mapping);
  }
  ~File() { munmap(const_cast<char*>(data_), bytes_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  template <class T>
  const T* at(std::size_t offset) const {
    return reinterpret_cast<const T*>(data_ + offset);
  }

 private:
  const char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// _ZZ<function>E<variable>B15momentum_shared<discriminator> -> _ZZ<function>
std::string_view enclosing_function(std::string_view symbol) { return symbol.substr(0, symbol.rfind('E', symbol.find(tag))); }

void check_size(const std::map<std::string, std::size_t>& bytes_of_function) {
  for (const auto& [function, bytes] : bytes_of_function)
    if (bytes > max_static_shared_bytes)
      fail(std::to_string(bytes) + " bytes of __shared__ variables in " + function + ", more than the 48 KB a block has");
}

std::vector<Variable> find_variables() {
  Dl_info info{};
  if (!dladdr(&block, &info)) fail("cannot find the file this code was loaded from");
  const File file(info.dli_fname);
  const auto* header = file.at<ElfW(Ehdr)>(0);
  const auto* sections = file.at<ElfW(Shdr)>(header->e_shoff);
  auto* base = header->e_type == ET_DYN ? static_cast<char*>(info.dli_fbase) : nullptr;
  std::vector<Variable> variables;
  std::map<std::string, std::size_t> bytes_of_function;
  bool has_symbols = false;
  for (unsigned section = 0; section < header->e_shnum; ++section) {
    if (sections[section].sh_type != SHT_SYMTAB) continue;
    has_symbols = true;
    const auto* names = file.at<char>(sections[sections[section].sh_link].sh_offset);
    const auto* symbols = file.at<ElfW(Sym)>(sections[section].sh_offset);
    for (std::size_t i = 0; i < sections[section].sh_size / sizeof(ElfW(Sym)); ++i) {
      const std::string_view name = names + symbols[i].st_name;
      if (symbols[i].st_shndx == SHN_UNDEF || name.find(tag) == name.npos) continue;
      if (ELF64_ST_BIND(symbols[i].st_info) == STB_GNU_UNIQUE && ELF64_ST_VISIBILITY(symbols[i].st_other) == STV_DEFAULT)
        fail("compile kernels with -fvisibility=hidden: as it is, two loaded objects share " + std::string(name));
      variables.push_back({base + symbols[i].st_value, symbols[i].st_size});
      bytes_of_function[std::string(enclosing_function(name))] += symbols[i].st_size;
    }
  }
  if (!has_symbols) fail(std::string(info.dli_fname) + " is stripped: its __shared__ variables cannot be found");
  check_size(bytes_of_function);
  return variables;
}

void renew(char* address, std::size_t bytes) {
  forget_accesses(address, bytes);
  std::memset(address, 0xff, bytes);
}

}  // namespace

void renew_shared_memory(char* dynamic, std::size_t dynamic_bytes) {
  static const std::vector<Variable> variables = find_variables();
  for (const Variable& variable : variables) renew(variable.address, variable.bytes);
  renew(dynamic, dynamic_bytes);
}

SharedAllocation::SharedAllocation(std::size_t bytes) {
  void* storage = nullptr;
  if (posix_memalign(&storage, 32, bytes + 16) != 0) fail("cannot allocate shared memory");
  storage_ = static_cast<char*>(storage);
}

SharedAllocation::~SharedAllocation() { std::free(storage_); }

}  // namespace momentum::emulator
