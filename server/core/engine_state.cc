// The engine's state as bytes: a version, what the engine was made for, and its fields in the order below.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/engine.h"
#include "server/core/state_bytes.h"

namespace descent {

namespace {
constexpr uint32_t kStateVersion = 2;
}  // namespace

std::string Engine::SaveState() const {
  StateWriter out;
  out.Put(kStateVersion);
  out.Put(options_.ranks);
  out.Put(options_.dense_blocks);
  out.Put(options_.slots);
  out.Put(window_);
  out.Put(uint8_t{options_.apply_push});
  out.PutAll(clock_);
  for (const Progress& p : progress_) {
    out.Put(uint8_t{p.begun});
    out.Put(p.announced);
    out.Put(p.admitted);
    out.Put(p.dense);
  }
  for (const Incarnation& incarnation : newest_) {
    out.Put(incarnation.generation.value);
    out.Put(incarnation.number);
  }
  out.PutAll(weight_);
  out.PutAll(begun_);
  out.PutAll(member_);
  out.PutAll(counted_);
  out.PutAll(empty_);
  out.PutAll(arrived_);
  out.PutAll(block_round_);
  out.PutAll(stage_);
  out.Put(round_);
  out.Put(uint8_t{committing_slots_});
  out.Put(scalars_);
  out.PutAll(marks_.all_marks());
  out.Put(uint8_t{!marks_.all_had().empty()});
  if (!marks_.all_had().empty()) out.PutAll(marks_.all_had());
  return out.Take();
}

absl::Status Engine::LoadState(absl::string_view state) {
  if (!held_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("an engine's state came while ", held_.size(), " reads are held"));
  }
  const auto refuse = [](auto... why) {
    return absl::InvalidArgumentError(absl::StrCat("an engine's state: expected ", why...));
  };
  StateReader in(state);
  if (const auto version = in.Get<uint32_t>(); version != kStateVersion) {
    return refuse("version ", kStateVersion, ", got ", version);
  }
  const auto ranks = in.Get<uint32_t>(), dense = in.Get<uint32_t>(), slots = in.Get<uint32_t>();
  const auto window = in.Get<uint64_t>();
  const bool apply_push = in.Get<uint8_t>() != 0;
  const auto text = [](uint32_t r, uint32_t d, uint32_t s, uint64_t w, bool push) {
    return absl::StrCat(r, " ranks, ", d, " blocks, ", s, " slots, ", w, " clocks, ", push ? "PUSH" : "ROUND");
  };
  if (ranks != options_.ranks || dense != options_.dense_blocks || slots != options_.slots || window != window_ ||
      apply_push != options_.apply_push) {
    return refuse(text(options_.ranks, options_.dense_blocks, options_.slots, window_, options_.apply_push), ", got ",
                  text(ranks, dense, slots, window, apply_push));
  }
  std::vector<uint64_t> clock = in.GetAll<uint64_t>(clock_.size());
  std::vector<Progress> progress(progress_.size());
  for (Progress& p : progress) {
    p.begun = in.Get<uint8_t>() != 0;
    p.announced = in.Get<uint32_t>();
    p.admitted = in.Get<uint32_t>();
    p.dense = in.Get<uint32_t>();
  }
  std::vector<Incarnation> newest(newest_.size());
  for (Incarnation& incarnation : newest) {
    incarnation.generation = Generation(in.Get<uint64_t>());
    incarnation.number = in.Get<uint64_t>();
  }
  auto weight = in.GetAll<double>(weight_.size());
  auto begun = in.GetAll<uint32_t>(begun_.size());
  auto member = in.GetAll<uint8_t>(member_.size());
  auto counted = in.GetAll<uint64_t>(counted_.size());
  auto empty = in.GetAll<uint32_t>(empty_.size());
  auto arrived = in.GetAll<uint32_t>(arrived_.size());
  auto block_round = in.GetAll<uint64_t>(block_round_.size());
  auto stage = in.GetAll<Stage>(stage_.size());
  const auto round = in.Get<uint64_t>();
  const bool committing_slots = in.Get<uint8_t>() != 0;
  const auto scalars = in.Get<Scalars>();
  auto marks = in.GetAll<uint64_t>(marks_.all_marks().size());
  const bool any_had = in.Get<uint8_t>() != 0;
  auto had = any_had ? in.GetAll<uint64_t>(marks_.all_marks().size()) : std::vector<uint64_t>();
  if (!in.at_end()) {
    return refuse("the fields of ", text(ranks, dense, slots, window, apply_push), ", got ", state.size(), " bytes, ",
                  in.ok() ? "more than these take" : "or lengths, that do not fit");
  }
  if (const uint64_t least = *std::min_element(clock.begin(), clock.end()); least < round) {
    return refuse("every rank at its round ", round, " at least, got one at clock ", least);
  }
  for (uint64_t at : block_round) {
    // Under PUSH blocks have no round.
    if (!apply_push && at - round > 1) return refuse("blocks at round ", round, " or the next, got one at ", at);
  }
  clock_ = std::move(clock);
  progress_ = std::move(progress);
  newest_ = std::move(newest);
  weight_ = std::move(weight);
  begun_ = std::move(begun);
  member_ = std::move(member);
  counted_ = std::move(counted);
  empty_ = std::move(empty);
  arrived_ = std::move(arrived);
  block_round_ = std::move(block_round);
  stage_ = std::move(stage);
  round_ = round;
  committing_slots_ = committing_slots;
  scalars_ = scalars;
  blocks_reduced_ = static_cast<uint32_t>(std::count(stage_.begin(), stage_.end(), Stage::kReduced));
  marks_.Load(std::move(marks), std::move(had));
  behind_ = static_cast<uint32_t>(std::count(clock_.begin(), clock_.end(), round_));
  blocks_ahead_ =
      apply_push ? 0 : static_cast<uint32_t>(std::count(block_round_.begin(), block_round_.end(), round_ + 1));
  return absl::OkStatus();
}

}  // namespace descent
