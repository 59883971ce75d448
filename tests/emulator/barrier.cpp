#include "barrier.h"

#include <string>

#include "report.h"
#include "sanitizers.h"
#include "scheduler.h"

namespace momentum::emulator {

namespace {

// Two generations alternate: a fast thread may arrive at the next barrier before a slow one has left this one, and
// must neither overwrite its result nor, for TSan, order its later writes before the slow thread's reads.
struct Generation {
  unsigned arrived = 0;
  unsigned votes = 0;
  Vote vote = Vote::none;
  std::source_location where;
  SyncPoint point;
};

Generation generations[2];
unsigned current_generation = 0;

void complete() {
  current_generation ^= 1;
  generations[current_generation].arrived = 0;
  generations[current_generation].votes = 0;
  for (unsigned linear = 0; linear < block.threads; ++linear)
    if (Thread& waiting = thread(linear); waiting.state == State::waiting && waiting.wait == Wait::barrier) wake(waiting);
}

bool everyone_arrived(const Generation& generation) {
  return generation.arrived > 0 && generation.arrived + block.exited == block.threads;
}

int outcome(const Generation& generation) {
  switch (generation.vote) {
    case Vote::none:
      break;
    case Vote::count:
      return static_cast<int>(generation.votes);
    case Vote::all:
      return generation.votes == generation.arrived;
    case Vote::any:
      return generation.votes > 0;
  }
  return 0;
}

}  // namespace

int barrier(Vote vote, bool predicate, const std::source_location& where) {
  Generation& mine = generations[current_generation];
  if (mine.arrived == 0) {
    mine.vote = vote;
    mine.where = where;
  } else if (mine.where.line() != where.line() || mine.where.column() != where.column() || mine.vote != vote) {
    fail("divergent barrier: this thread reached " + place(where) + " while " + std::to_string(mine.arrived) +
         " others of its block wait at " + place(mine.where));
  }
  mine.point.release(block.half);
  ++mine.arrived;
  mine.votes += predicate;
  if (everyone_arrived(mine)) {
    complete();
  } else {
    suspend(Wait::barrier, where);
  }
  mine.point.acquire(block.half);
  return outcome(mine);
}

void reset_barrier() {
  for (Generation& generation : generations) generation.arrived = generation.votes = 0;
}

void barrier_thread_exited() {
  if (everyone_arrived(generations[current_generation])) complete();
}

}  // namespace momentum::emulator
