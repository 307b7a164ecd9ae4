// A test in which the emulator finds something fails, whatever the values are.
#include "emulator.hpp"
#include "gtest/gtest.h"

namespace {

class Findings : public ::testing::EmptyTestEventListener {
  void OnTestEnd(const ::testing::TestInfo&) override {
    for (const emulator::Finding& finding : emulator::TakeFindings()) {
      ADD_FAILURE() << "emulator: " << finding.kind << ": " << finding.text;
    }
  }
};

const bool listens = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new Findings());
  return true;
}();

}  // namespace
