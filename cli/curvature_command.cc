// descent curvature --model DIR: what kind of point a trained model is at.
#include <cstdio>
#include <memory>
#include <string>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/commands.h"
#include "cli/curvature_probe.h"

namespace descent {

void AddCurvatureCommand(CLI::App* program, const std::string& user_cache, int* exit_status) {
  CLI::App* command = program->add_subcommand(
      "curvature",
      "What kind of point a trained model is at: the gradient of its job's objective there (mean loss over the "
      "training "
      "data, with l2), the least and the greatest eigenvalue of the Hessian, and whether that makes a minimum or a "
      "saddle");
  auto probe = std::make_shared<CurvatureProbe>();
  auto json = std::make_shared<bool>(false);
  probe->user_cache = user_cache;
  command->add_option("--model", probe->model, "A run's model folder")->required()->type_name("DIR");
  command->add_option("--data-root", probe->data_root, "Where the job's data are, in the place of data.root")
      ->type_name("DIR");
  command
      ->add_option("--set", probe->sets, "Override a field of the job that the model holds, as l2=0; may be repeated")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false)
      ->delimiter('\0');
  command->add_option("--rows", probe->rows, "Take so many training rows, evenly spaced (default: all)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--steps", probe->options.lanczos.steps,
                   "Products with the Hessian at most, two gradients each (default: 60)")
      ->type_name("N")
      ->check(CLI::Range(1u, 10000u));
  command->add_option("--seed", probe->options.lanczos.seed, "Of the random vector to begin with (default: 1)")
      ->type_name("N");
  command
      ->add_option("--stationary-below", probe->options.stationary,
                   "Up to this norm of the gradient a point is stationary (default: 0.001)")
      ->type_name("NORM")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--flat", probe->options.flat,
                   "Curvatures within this share of the greatest count as none (default: 0.0001)")
      ->type_name("SHARE")
      ->check(CLI::Range(0.0, 1.0));
  command->add_flag("--json", *json, "As one JSON object");
  command->callback([probe, json, exit_status] {
    const absl::StatusOr<CurvatureReport> report = ProbeCurvature(*probe);
    if (!report.ok()) {
      *exit_status = Complain(report.status(), 1);
      return;
    }
    std::fputs((*json ? CurvatureJson(*report) : CurvatureText(*report)).c_str(), stdout);
  });
}

}  // namespace descent
