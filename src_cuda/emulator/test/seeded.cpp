// Which of the mistakes in mistakes.py this run makes: the environment variable SEEDED_MISTAKE, none without it.
#include <cstdlib>

#include "emulator.hpp"

namespace emulator {

bool Seeded(const int number) {
  static const char* const chosen = std::getenv("SEEDED_MISTAKE");
  static const int seeded = chosen == nullptr ? 0 : std::atoi(chosen);
  return number == seeded;
}

}  // namespace emulator
