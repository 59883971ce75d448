#include "torch/device/samgs.h"
