// A parameter service and what its node reports, to be picked up by the thread that owns the seat. Made first: a server
// binds before it knows the address to register.
#ifndef DESCENT_SERVER_PROCESS_SERVER_SERVICES_H_
#define DESCENT_SERVER_PROCESS_SERVER_SERVICES_H_

#include <cstddef>
#include <deque>
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
    bool norms_only = false;
  };

  ServerServices();
  ~ServerServices() { agent_.Stop(); }
  ScalarAgent* agent() { return &agent_; }
  ParameterService* service() { return service_.get(); }

  // Waits until there is something to take that does not wait itself, as norms do that are for histograms alone; or for
  // the deadline.
  void Wait(absl::Time deadline, bool failure_known);
  std::deque<Scalars> TakeScalars();
  absl::Status failure() const;
  void ForgetNode();  // it is gone: what it has said, and nobody has taken, is void

 private:
  void Keep(Scalars scalars);

  mutable Mutex mu_;
  CondVar changed_;
  std::deque<Scalars> scalars_ ABSL_GUARDED_BY(mu_);
  size_t squares_ ABSL_GUARDED_BY(mu_) = 0;     // in them
  bool pressing_ ABSL_GUARDED_BY(mu_) = false;  // some of them are
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  ScalarAgent agent_;
  std::unique_ptr<ParameterService> service_;  // last: its thread calls into the fields above
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_SERVER_SERVICES_H_
