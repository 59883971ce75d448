// The solver's decisions: Sinkhorn sweeps or sparse Newton steps, at which temperature, and when to stop.
//
// Sinkhorn-Newton-Sparse (Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao, Ying: "Accelerating Sinkhorn algorithm
// with sparse Newton iterations", ICLR 2024), made robust by an annealed temperature, a threshold tied to the error, a line
// search, and sweeps wherever those are cheaper or a Newton step fails. F never decreases beyond rounding, and sweeps alone
// converge, so a failing Newton step costs time and nothing else.
//
// A Machine does the arithmetic: one problem on the CPU, one problem in one block of a GPU, one problem on a whole GPU.
//   Scan scan();             facts of the input
//   void start(k);           temperature k, potentials of the product measure
//   void set_temperature(k); another temperature, potentials carried over
//   double sweep();          one Sinkhorn iteration in one read of the cost; returns the L1 error of the marginals
//   Step newton(theta, cg_tolerance, may_accept);
//                            entries below theta min(r_i / m, c_j / n) are dropped from the sparse plan: every row loses at
//                            most theta of its sum r_i, every column at most theta of c_j, whatever their number
//   double sweep_equivalents(step);  what a Newton step cost, in sweeps
//   double rounding();       L1 error that rounding of the exponents alone can make
//   double verify();         the error of the potentials as they are stored, in one more read
//   double value();          the regularised cost
//   double shortage();       after a sweep: mass of some rows that has nowhere to go; see `no_plan`
#pragma once

#include "core/ot/problem.h"

#if defined(__CUDACC__)
#define MOMENTUM_OT_MACHINE _Pragma("nv_exec_check_disable")
#else
#define MOMENTUM_OT_MACHINE
#endif

namespace momentum::ot {

inline constexpr double kFirstSpread = 20;     // spread of C / reg at which annealing starts
inline constexpr double kStageError = 5e-3;    // error, relative to the mass, at which the temperature is lowered
inline constexpr double kLargestTheta = 1e-3;  // of the threshold; below, a tenth of the error
inline constexpr int kProbeSweeps = 8;         // before `auto` believes a measured rate
inline constexpr double kNewtonBudget = 40;    // sweeps that an annealed Newton solve costs, about
inline constexpr int kFirstDoubt = 16;         // sweeps after which feasibility is looked at; then after twice as many

// Sweeps until `goal` at the rate of the last two errors; a huge number where there is no progress.
MOMENTUM_HD double sweeps_to(double goal, double error, double rate) {
  if (error <= goal) return 0;
  if (!(rate < 1)) return 1e300;
  if (rate <= 0) return 1;
  return log2_of(goal / error) / log2_of(rate);
}

// Notices that the error no longer falls because rounding is all that is left.
struct Floor {
  double best = 1e300;
  int idle = 0;

  MOMENTUM_HD bool reached(double error, double rounding, int patience) {
    if (error < 0.9 * best) {
      best = error;
      idle = 0;
    } else {
      ++idle;
    }
    return error <= 64 * rounding && idle >= patience;
  }
};

template <class Machine>
struct Solver {
  Machine& m;
  const Options& options;
  Outcome out;
  double mass = 0, goal = 0;
  int64_t next_doubt = int64_t(1) << 62;  // sweeps after which feasibility is looked at; far off without forbidden entries

  MOMENTUM_OT_MACHINE
  MOMENTUM_HD Solver(Machine& machine, const Options& o) : m(machine), options(o) {}

  MOMENTUM_HD bool spent() const { return out.sweeps >= options.max_sweeps; }

  // Errors of steps are those of sums carried along; the stored potentials' own, measured at the end, may be larger by
  // rounding.
  MOMENTUM_HD double goal_with(double rounding) const {
    const double margin = 32 * rounding;
    return goal - (margin < 0.5 * goal ? margin : 0.5 * goal);
  }

  MOMENTUM_OT_MACHINE
  MOMENTUM_HD double sweep() {
    ++out.sweeps;
    return m.sweep();
  }

  // Whether rows S are known whose mass exceeds, by more than tol, that of all columns N(S) which they reach by a finite cost.
  // Any plan P >= 0 then has an error of at least a(S) - b(N(S)) > tol: (P 1)(S) <= (P^T 1)(N(S)). Sets without a plan always
  // hold such rows (Hall's theorem for flows). Sweeps raise the potentials of the neediest for ever, each at the rate of its
  // class, and Newton steps raise them far: rows are ordered by how much the last sweep raised them, and by their potentials,
  // and the Machine tries every beginning of both orders. Looked at as sweeps double, so that it costs next to nothing.
  MOMENTUM_OT_MACHINE
  MOMENTUM_HD bool no_plan() {
    next_doubt = 2 * int64_t(out.sweeps);
    if (!(m.shortage() > goal)) return false;
    out.status = Status::kInfeasible;
    return true;
  }

  // Plain Sinkhorn at the final temperature. False: `auto` has measured that Newton pays.
  MOMENTUM_OT_MACHINE
  MOMENTUM_HD bool sinkhorn(double k) {
    m.start(k);
    double e1 = 1e300, e2 = 1e300, e3 = 1e300, e4 = 1e300;  // errors of the last sweeps; an array would live in local memory
    Floor floor;
    for (int t = 0;; ++t) {
      const double error = sweep(), rounding = m.rounding();
      out.error = error;
      out.status = Status::kConverged;
      if (error <= goal_with(rounding)) return true;
      if (out.sweeps >= next_doubt && no_plan()) return true;
      if (floor.reached(error, rounding, 50)) {
        out.status = Status::kPrecisionFloor;
        return true;
      }
      if (spent()) {
        out.status = Status::kMaxSweeps;
        return true;
      }
      if (options.method == Method::kAuto && t >= kProbeSweeps) {
        const double ratio = error / e4;
        const double need = 4 * sweeps_to(goal > rounding ? goal : rounding, error, ratio);
        if (need > kNewtonBudget) return false;
      }
      e4 = e3;
      e3 = e2;
      e2 = e1;
      e1 = error;
    }
  }

  // Sweeps and Newton steps until the error is below `target`. False: out of sweeps, at the precision floor, or infeasible.
  MOMENTUM_OT_MACHINE
  MOMENTUM_HD bool descend(double target, bool last, double& step_cost, int& rejected) {
    double error = sweep(), rate = 1;
    Floor floor;
    int sweeps_due = 1, swept = 0;  // a second sweep measures the rate
    bool after_newton = false;
    rejected = 0;
    for (;;) {
      out.error = error;
      // An intermediate stage is done when what is still to come is small. Sweeps leave slow modes behind: their rate counts.
      const double slow = 3 * (1 - rate);
      const double share = last || after_newton || slow > 1 ? 1 : slow > 1e-3 ? slow : 1e-3;
      const double rounding = m.rounding();
      const double wanted = last ? goal_with(rounding) : share * target;
      if (error <= wanted && (last || sweeps_due == 0)) return true;
      if (spent()) {
        out.status = Status::kMaxSweeps;
        return false;
      }
      if (out.sweeps >= next_doubt) {
        error = sweep();
        after_newton = false;
        if (no_plan()) return false;
        continue;
      }
      if (floor.reached(error, rounding, sweeps_due > 0 ? 50 : 3)) {
        out.status = Status::kPrecisionFloor;
        return !last;
      }
      const double steps = last ? 4.0 : 1.5;
      const double left = steps * step_cost - swept;  // rates worsen on the way: no more is spent than Newton would cost
      if (sweeps_due > 0 || (!after_newton && sweeps_to(wanted, error, rate) <= left)) {
        if (sweeps_due > 0) {
          --sweeps_due;
        } else {
          ++swept;
        }
        const double before = error;
        error = sweep();
        rate = error / before;
        after_newton = false;
        continue;
      }
      const double relative = error / mass, tied = 0.1 * relative;
      const double theta = tied < kLargestTheta ? tied : kLargestTheta;
      const double forcing = relative < 1e-2 ? relative : 1e-2;
      const bool may_accept = options.newton_limit < 0 || out.newton < options.newton_limit;
      const Step step = m.newton(theta, forcing > 1e-12 ? forcing : 1e-12, may_accept);
      out.cg += step.cg;
      out.sweeps += step.reads;
      step_cost = m.sweep_equivalents(step);
      if (step.accepted) {
        ++out.newton;
        error = step.error;
        after_newton = true;
      } else {
        ++out.rejected;
        sweeps_due = 5 << (rejected < 6 ? rejected : 6);
        ++rejected;
      }
    }
  }

  MOMENTUM_OT_MACHINE
  MOMENTUM_HD void anneal(double k, double spread) {
    double now = spread > 0 ? kFirstSpread * kLog2e / spread : k;
    if (now > k) now = k;
    m.start(now);
    double factor = 2, step_cost = 12;
    out.status = Status::kConverged;
    for (;;) {
      const bool last = now >= k;
      int rejected = 0;
      const bool arrived = descend(last ? goal : kStageError * mass, last, step_cost, rejected);
      if (last) return;
      if (out.status == Status::kInfeasible) return;
      if (!arrived) {  // what there is, at the temperature that was asked for
        m.set_temperature(k);
        ++out.sweeps;
        out.error = m.verify();
        return;
      }
      if (rejected > 0) {
        factor = 1 + (factor - 1) / 2;
      } else if (factor < 2) {
        factor = factor * factor < 2 ? factor * factor : 2;
      }
      now = now * factor < k * 0.999 ? now * factor : k;
      m.set_temperature(now);
    }
  }

  MOMENTUM_OT_MACHINE
  MOMENTUM_HD Outcome run() {
    const Scan scan = m.scan();
    mass = scan.mass;
    goal = options.tol * mass;
    if (scan.invalid || scan.infeasible) {
      out.status = scan.invalid ? Status::kInvalid : Status::kInfeasible;
      return out;
    }
    if (mass == 0) return out;
    if (scan.forbidden) next_doubt = kFirstDoubt;
    const double k = kLog2e / options.reg;
    const bool done = options.method != Method::kNewton && sinkhorn(k);
    if (!done) anneal(k, scan.cost_max - scan.cost_min);
    if (scan.forbidden && (out.status == Status::kMaxSweeps || out.status == Status::kPrecisionFloor)) {
      out.error = sweep();
      no_plan();
    }
    // Errors so far are those of sums carried from step to step. Where rounding matters, the stored potentials are measured.
    if (out.status != Status::kInfeasible) {
      if (out.error < 1e4 * m.rounding()) {
        ++out.sweeps;
        out.error = m.verify();
        if (out.status == Status::kConverged && out.error > goal) out.status = Status::kPrecisionFloor;
      }
      if (out.error <= goal) out.status = Status::kConverged;
    }
    out.error /= mass;
    out.value = m.value();
    return out;
  }
};

}  // namespace momentum::ot
