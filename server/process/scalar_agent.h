// Brings what a server's node has measured of a step to the coordinator, and what all servers agree on back to the
// node. On a thread of its own: the step waits for it, and the coordinator's answer for other servers.
//
// The parts of the last few clocks are kept and told again when a generation begins that goes on with what the node
// holds: the coordinator that knew them is gone, and another server may not have had its answer.
//
// Thread-safe.
#ifndef DESCENT_SERVER_PROCESS_SCALAR_AGENT_H_
#define DESCENT_SERVER_PROCESS_SCALAR_AGENT_H_

#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/control/control_client.h"
#include "common/tensor/global_scalars.h"
#include "server/rpc/parameter_service.h"

namespace descent {

class ScalarAgent {
 public:
  struct Identity {
    uint64_t member = 0, generation = 0;
    uint32_t server = 0;
    bool operator==(const Identity&) const = default;
  };

  ScalarAgent() = default;
  ~ScalarAgent() { Stop(); }

  // In whose name to speak: none of it is told before. The pointers outlive Stop. `keep`: clocks, at least 1.
  void Speak(const Identity& identity, size_t keep, ControlClient* control, ParameterService* service);
  // Never waits.
  void Measured(Clock clock, std::vector<BlockScalars> parts);
  // The node goes, and all that it waited for: what is under way reaches no other node that is installed after this.
  void Forget();
  // Waits for the call under way.
  void Stop();

 private:
  struct Told {
    Clock clock;
    std::vector<BlockScalars> parts;
    bool answered = false;
  };

  void Run();
  v1::ScalarPartials MessageOf(const Told& told) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  CondVar changed_;
  std::deque<Told> told_ ABSL_GUARDED_BY(mu_);  // at most keep_
  Identity identity_ ABSL_GUARDED_BY(mu_);
  size_t keep_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;  // counts what makes an answer under way void
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  ControlClient* control_ ABSL_GUARDED_BY(mu_) = nullptr;
  ParameterService* service_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::thread thread_;  // begun by the first Speak, joined by Stop; of the owner's thread
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_SCALAR_AGENT_H_
