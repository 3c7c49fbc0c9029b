#include "tests/simulation/virtual_network.h"

#include <algorithm>

namespace descent::simulation {

VirtualNetwork::VirtualNetwork(uint32_t processes, const Weather& weather, Dice* dice)
    : weather_(weather),
      dice_(dice),
      processes_(processes),
      cut_until_(size_t{processes} * processes, absl::InfinitePast()) {}

void VirtualNetwork::Push(absl::Time when, ProcessId process, uint64_t life, Action action) {
  heap_.push_back({when, ++sequence_, process, life, std::move(action)});
  std::push_heap(heap_.begin(), heap_.end(), Later());
}

bool VirtualNetwork::Step() {
  if (heap_.empty()) return false;
  std::pop_heap(heap_.begin(), heap_.end(), Later());
  Event event = std::move(heap_.back());
  heap_.pop_back();
  now_ = event.when;
  if (event.life != 0) {
    const Process& process = processes_[event.process];
    if (!process.alive || process.life != event.life) return true;
    if (process.paused_until > now_) {
      Push(process.paused_until, event.process, event.life, std::move(event.action));
      return true;
    }
  }
  ++events_;
  trace_ = Mix(trace_, static_cast<uint64_t>(absl::ToUnixNanos(now_)) << 8 ^ event.process);
  event.action();
  return true;
}

void VirtualNetwork::Start(ProcessId p) {
  processes_[p].alive = true;
  ++processes_[p].life;
  processes_[p].paused_until = absl::InfinitePast();
}

void VirtualNetwork::Pause(ProcessId p, absl::Duration time) {
  processes_[p].paused_until = std::max(processes_[p].paused_until, now_ + time);
}

void VirtualNetwork::Cut(ProcessId from, ProcessId to, absl::Duration time) {
  absl::Time& until = cut_until_[from * processes_.size() + to];
  until = std::max(until, now_ + time);
}

absl::Duration VirtualNetwork::Delay() {
  const absl::Duration delay = dice_->Between(absl::ZeroDuration(), weather_.delay);
  return dice_->Chance(weather_.late) ? delay * 20 : delay;
}

// nullopt: the message is lost.
std::optional<absl::Duration> VirtualNetwork::CallDelay(ProcessId from, ProcessId to) {
  if (weather_.call_resend == absl::ZeroDuration()) {
    if (Lost(from, to)) return std::nullopt;
    return Delay();
  }
  const absl::Time cut_until = cut_until_[from * processes_.size() + to];
  for (absl::Duration sent = absl::ZeroDuration(); sent < kCallDeadline; sent += weather_.call_resend) {
    if (cut_until <= now_ + sent && (from == to || !dice_->Chance(weather_.drop))) return sent + Delay();
  }
  return std::nullopt;
}

void VirtualNetwork::At(absl::Duration after, Action action) { Push(now_ + after, 0, 0, std::move(action)); }

void VirtualNetwork::On(ProcessId p, absl::Duration after, Action action) {
  if (alive(p)) Push(now_ + after, p, life(p), std::move(action));
}

void VirtualNetwork::Message(ProcessId from, ProcessId to, Action action) {
  if (Lost(from, to)) return;
  if (dice_->Chance(weather_.duplicate)) On(to, Delay(), action);
  On(to, Delay(), std::move(action));
}

}  // namespace descent::simulation
