// A parameter service and what its node reports, to be picked up by the thread that owns the seat. Made first: a server
// binds before it knows the address to register.
#ifndef DESCENT_SERVER_PROCESS_SERVER_SERVICES_H_
#define DESCENT_SERVER_PROCESS_SERVER_SERVICES_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "server/node/server_node.h"
#include "server/process/scalar_agent.h"
#include "server/rpc/parameter_service.h"

namespace descent {

// Thread-safe.
class ServerServices {
 public:
  struct Scalars {
    Clock clock;
    std::vector<BlockSquare> squares;
  };

  ServerServices();
  ~ServerServices() { agent_.Stop(); }
  ScalarAgent* agent() { return &agent_; }
  ParameterService* service() { return service_.get(); }

  // Waits until there is something to take, or the deadline.
  void Wait(absl::Time deadline, bool failure_known);
  std::vector<Scalars> TakeScalars();
  absl::Status failure() const;
  void ForgetFailure();  // the node that failed is gone

 private:
  mutable Mutex mu_;
  CondVar changed_;
  std::vector<Scalars> scalars_ ABSL_GUARDED_BY(mu_);  // at most kMaxScalars
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  ScalarAgent agent_;
  std::unique_ptr<ParameterService> service_;  // last: its thread calls into the fields above
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_SERVER_SERVICES_H_
