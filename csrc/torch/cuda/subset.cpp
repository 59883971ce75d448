#include "torch/device/subset.h"
