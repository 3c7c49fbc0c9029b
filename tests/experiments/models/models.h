// Models that no job file can ask for, small enough that what a method does on them is known in closed form or from the
// literature. tests/experiments trains them with descent run --worker-binary experiment_worker.
#ifndef DESCENT_TESTS_EXPERIMENTS_MODELS_MODELS_H_
#define DESCENT_TESTS_EXPERIMENTS_MODELS_MODELS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/models/model.h"
#include "worker/models/model_factory.h"

namespace descent {

// f(x) = sum_i curvature_i x_i^2 / 2, from x = start; both [dim]. No data. T: float, double.
template <typename T>
std::unique_ptr<Model<T>> MakeCurvedQuadratic(std::vector<double> curvature, double start);

// An example is one number a; its loss is x^2 / 2 + y^4 / 4 - y^2 / 2 + a y, at first in (start, 0). Where the mean of
// a is 0 the mean loss has a saddle in (0, 0), whose Hessian is diag(1, -1), and its minima, -1/4, in (0, 1) and (0,
// -1).
template <typename T>
std::unique_ptr<Model<T>> MakeSaddle(double start);

// A recurrent net after Elman (1990) with rectified units, as that of Le, Jaitly and Hinton (2015): h_t = max(0, x_t U
// + h_(t-1) W + b), h_0 = 0, and the score h_steps v + c, compared with a number by half the squared error. Features:
// `steps` inputs of `width`, one behind the other. W starts normal with deviation gain sqrt(2 / units): above a gain of
// 1 states and derivatives grow from step to step (He et al. 2015). Tensors: "input_weights" [width x units],
// "state_weights" [units x units], "bias", "output_weights", "output_bias".
template <typename T>
std::unique_ptr<Model<T>> MakeElman(size_t steps, size_t width, size_t units, double gain);

// The three by name: "curved_quadratic" (options curvatures: "1,100", start), "saddle" (start), "elman" (steps, units,
// gain). INVALID_ARGUMENT names the option.
CustomModels ExperimentModels();

}  // namespace descent

#endif  // DESCENT_TESTS_EXPERIMENTS_MODELS_MODELS_H_
