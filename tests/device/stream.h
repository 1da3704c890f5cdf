// Between the driver and the libraries above it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

// Enqueues work on a stream (null: the default one); false if the context is lost.
bool software_enqueue(void *stream, std::function<void()> work);

// Whether all of a range lies in one live allocation, by the order of the program.
bool software_owns(const void *address, size_t bytes);

// Says what was done wrong, once for each text; with SOFTWARE_GPU_STRICT=1 (the default) the process ends.
void software_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
