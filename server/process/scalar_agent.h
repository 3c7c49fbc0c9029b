// Brings what a server's node has measured of a step to the coordinator, and what all servers agree on back to the
// node. On a thread of its own: the step waits for it, and the coordinator's answer for other servers.
//
// The parts of the last few clocks are kept and told again when a generation begins that goes on with what the node
// holds (scalar_telling.h).
//
// What the coordinator, or the node, does not take is asked again for as long as it takes (insistence.h), and said.
//
// Thread-safe.
#ifndef DESCENT_SERVER_PROCESS_SCALAR_AGENT_H_
#define DESCENT_SERVER_PROCESS_SCALAR_AGENT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/control/control_client.h"
#include "common/tensor/global_scalars.h"
#include "server/process/insistence.h"
#include "server/process/scalar_telling.h"
#include "server/rpc/parameter_service.h"

namespace descent {

class ScalarAgent {
 public:
  struct Identity {
    uint64_t member = 0, generation = 0;
    uint32_t server = 0;
    bool operator==(const Identity&) const = default;
  };

  using Warn = std::function<void(std::string)>;

  explicit ScalarAgent(const Insistence::Options& insistence = {}) : insistence_(insistence) {}
  ~ScalarAgent() { Stop(); }

  // In whose name to speak: none of it is told before. The pointers outlive Stop. `keep`: clocks, at least 1. `warn`
  // is called from other threads, also after Stop where the service still has a task.
  void Speak(const Identity& identity, size_t keep, ControlClient* control, ParameterService* service, Warn warn);
  // Never waits.
  void Measured(Clock clock, std::vector<BlockScalars> parts);
  // The node goes, and all that it waited for: what is under way reaches no other node that is installed after this.
  void Forget();
  // Waits for the call under way.
  void Stop();

 private:
  void Run();
  // Until `pause` is over, or there may be something else to do.
  void Pause(absl::Duration pause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  v1::ScalarPartials MessageOf(const ScalarTelling::Told& told) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  CondVar changed_;
  ScalarTelling telling_ ABSL_GUARDED_BY(mu_);
  Identity identity_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  ControlClient* control_ ABSL_GUARDED_BY(mu_) = nullptr;
  ParameterService* service_ ABSL_GUARDED_BY(mu_) = nullptr;
  Warn warn_ ABSL_GUARDED_BY(mu_);
  Insistence insistence_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // begun by the first Speak, joined by Stop; of the owner's thread
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_SCALAR_AGENT_H_
