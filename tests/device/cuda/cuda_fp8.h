#include "device.h" // all of it is there
