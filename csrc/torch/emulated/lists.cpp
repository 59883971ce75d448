#include "torch/device/lists.h"
