#include "torch/device/stablemax.h"
