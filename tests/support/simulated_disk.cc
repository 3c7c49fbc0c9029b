#include "tests/support/simulated_disk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"

namespace descent::testing {

struct SimulatedDisk::Node {
  using Entries = std::map<std::string, std::shared_ptr<Node>>;
  // One change of a folder: a name is gone, a name is there; a rename is both.
  struct Change {
    std::string gone, there;
    std::shared_ptr<Node> node;
    void Apply(Entries* entries) const {
      if (!gone.empty()) entries->erase(gone);
      if (!there.empty()) (*entries)[there] = node;
    }
  };

  bool folder = false;
  // A file.
  std::string data;
  size_t synced = 0;  // bytes that last
  bool sync_failed = false;
  // A folder.
  Entries entries, synced_entries;
  std::vector<Change> pending;

  void Do(Change change) {
    change.Apply(&entries);
    pending.push_back(std::move(change));
  }
};

class SimulatedDisk::Writer final : public WritableFile {
 public:
  Writer(SimulatedDisk* disk, std::shared_ptr<Node> node, std::string path)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)), life_(disk->counters_.crashes) {}

  absl::Status Append(absl::string_view bytes) override {
    DESCENT_RETURN_IF_ERROR(Begin(DiskOperation::kAppend));
    const uint64_t used = disk_->capacity_ == kUnbounded ? 0 : disk_->used();
    const uint64_t room = disk_->capacity_ - std::min(disk_->capacity_, used);
    absl::StrAppend(&node_->data, bytes.substr(0, room));
    if (bytes.size() <= room) return absl::OkStatus();
    ++disk_->counters_.full_disk;
    return absl::ResourceExhaustedError(absl::StrCat(path_, ": No space left on device"));
  }
  absl::Status Sync() override {
    if (absl::Status status = Begin(DiskOperation::kSync); !status.ok()) {
      node_->sync_failed = true;
      return status;
    }
    if (!node_->sync_failed) node_->synced = node_->data.size();
    return absl::OkStatus();
  }
  absl::Status Close() override { return Begin(DiskOperation::kClose); }

 private:
  absl::Status Begin(DiskOperation which) {
    if (life_ != disk_->counters_.crashes)
      return absl::UnavailableError(absl::StrCat(path_, ": opened before a crash"));
    return disk_->Begin(which, path_);
  }

  SimulatedDisk* const disk_;
  const std::shared_ptr<Node> node_;
  const std::string path_;
  const uint64_t life_;
};

class SimulatedDisk::Reader final : public ReadableFile {
 public:
  Reader(SimulatedDisk* disk, std::shared_ptr<Node> node, std::string path)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)), size_(node_->data.size()) {}

  absl::StatusOr<size_t> ReadAt(uint64_t offset, void* to, size_t bytes) override {
    if (disk_->power_out_) return absl::UnavailableError(absl::StrCat(path_, ": the power is out"));
    if (offset >= node_->data.size()) return size_t{0};
    const size_t n = std::min<size_t>(bytes, node_->data.size() - offset);
    std::memcpy(to, node_->data.data() + offset, n);
    return n;
  }
  uint64_t size() const override { return size_; }

 private:
  SimulatedDisk* const disk_;
  const std::shared_ptr<Node> node_;
  const std::string path_;
  const uint64_t size_;
};

SimulatedDisk::SimulatedDisk(std::function<uint64_t(uint64_t)> random)
    : random_(std::move(random)), root_(std::make_shared<Node>()) {
  root_->folder = true;
}
SimulatedDisk::~SimulatedDisk() = default;

absl::Status SimulatedDisk::Begin(DiskOperation which, absl::string_view path) {
  const auto index = static_cast<size_t>(which);
  if (!power_out_ && which != DiskOperation::kOpen && which != DiskOperation::kList) {
    ++counters_.changes;
    if (power_left_ == 0) {
      power_out_ = true;
    } else if (power_left_ != kUnbounded) {
      --power_left_;
    }
  }
  if (power_out_) return absl::UnavailableError(absl::StrCat(path, ": the power is out"));
  ++counters_.operations[index];
  if (fail_[index] > 0 && --fail_[index] == 0) {
    ++counters_.failures[index];
    return absl::UnavailableError(absl::StrCat(path, ": Input/output error"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<SimulatedDisk::Node>> SimulatedDisk::Find(const std::string& path, bool folder) const {
  DESCENT_RETURN_IF_ERROR(CheckStoragePath(path));
  std::shared_ptr<Node> node = root_;
  if (!path.empty()) {
    for (const absl::string_view name : absl::StrSplit(path, '/')) {
      const auto found = node->entries.find(std::string(name));
      if (found == node->entries.end()) return absl::NotFoundError(absl::StrCat(path, ": No such file or directory"));
      node = found->second;
    }
  }
  if (node->folder == folder) return node;
  return absl::FailedPreconditionError(
      absl::StrCat(path, folder ? ": is a file, not a folder" : ": is no regular file"));
}

absl::StatusOr<SimulatedDisk::Place> SimulatedDisk::Locate(const std::string& path) const {
  const size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? std::string() : path.substr(0, slash);
  DESCENT_RETURN_IF_ERROR(CheckStoragePath(path));
  DESCENT_ASSIGN_OR_RETURN(const std::shared_ptr<Node> folder, Find(parent, true));
  return Place{folder.get(), slash == std::string::npos ? path : path.substr(slash + 1)};
}

absl::Status SimulatedDisk::MakeFolder(const std::string& path) {
  DESCENT_RETURN_IF_ERROR(Begin(DiskOperation::kMakeFolder, path));
  DESCENT_RETURN_IF_ERROR(CheckStoragePath(path));
  if (path.empty()) return absl::OkStatus();
  Node* node = root_.get();
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    const std::string name(part);
    if (!node->entries.contains(name)) {
      auto made = std::make_shared<Node>();
      made->folder = true;
      node->Do({std::string(), name, std::move(made)});
    }
    node = node->entries[name].get();
    if (!node->folder) return absl::AlreadyExistsError(absl::StrCat(path, ": is a file, not a folder"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<WritableFile>> SimulatedDisk::Create(const std::string& path) {
  DESCENT_RETURN_IF_ERROR(Begin(DiskOperation::kCreate, path));
  DESCENT_ASSIGN_OR_RETURN(const Place place, Locate(path));
  if (place.folder->entries.contains(place.name)) return absl::AlreadyExistsError(absl::StrCat(path, ": File exists"));
  auto made = std::make_shared<Node>();
  place.folder->Do({std::string(), place.name, made});
  return std::make_unique<Writer>(this, std::move(made), path);
}

absl::Status SimulatedDisk::CreateExclusive(const std::string& path, absl::string_view contents) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, Create(path));
  DESCENT_RETURN_IF_ERROR(file->Append(contents));
  DESCENT_RETURN_IF_ERROR(file->Sync());
  DESCENT_RETURN_IF_ERROR(file->Close());
  const size_t slash = path.rfind('/');
  return SyncFolder(slash == std::string::npos ? std::string() : path.substr(0, slash));
}

absl::StatusOr<std::unique_ptr<ReadableFile>> SimulatedDisk::Open(const std::string& path) {
  DESCENT_RETURN_IF_ERROR(Begin(DiskOperation::kOpen, path));
  DESCENT_ASSIGN_OR_RETURN(std::shared_ptr<Node> node, Find(path, false));
  return std::make_unique<Reader>(this, std::move(node), path);
}

absl::Status SimulatedDisk::Rename(const std::string& from, const std::string& to) {
  DESCENT_RETURN_IF_ERROR(Begin(DiskOperation::kRename, from));
  DESCENT_ASSIGN_OR_RETURN(const Place source, Locate(from));
  DESCENT_ASSIGN_OR_RETURN(const Place target, Locate(to));
  if (source.folder != target.folder) return absl::UnavailableError(absl::StrCat(from, ": renamed across folders"));
  const auto found = source.folder->entries.find(source.name);
  if (found == source.folder->entries.end()) {
    return absl::NotFoundError(absl::StrCat(from, ": No such file or directory"));
  }
  source.folder->Do({source.name, target.name, found->second});
  return absl::OkStatus();
}

absl::Status SimulatedDisk::Remove(const std::string& path) {
  DESCENT_RETURN_IF_ERROR(CheckStoragePath(path));
  // A folder goes name by name, so that a crash may leave half of it.
  if (const auto folder = Find(path, true); folder.ok()) {
    const Node::Entries entries = (*folder)->entries;
    for (const auto& [name, node] : entries) {
      DESCENT_RETURN_IF_ERROR(Remove(path.empty() ? name : absl::StrCat(path, "/", name)));
    }
  }
  DESCENT_RETURN_IF_ERROR(Begin(DiskOperation::kRemove, path));
  const auto place = Locate(path);
  if (place.ok() && place->folder->entries.contains(place->name)) {
    place->folder->Do({place->name, std::string(), nullptr});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> SimulatedDisk::List(const std::string& path) {
  DESCENT_RETURN_IF_ERROR(Begin(DiskOperation::kList, path));
  DESCENT_ASSIGN_OR_RETURN(const std::shared_ptr<Node> folder, Find(path, true));
  std::vector<std::string> names;
  for (const auto& [name, node] : folder->entries) names.push_back(name);
  return names;
}

absl::Status SimulatedDisk::SyncFolder(const std::string& path) {
  DESCENT_RETURN_IF_ERROR(Begin(DiskOperation::kSyncFolder, path));
  DESCENT_ASSIGN_OR_RETURN(const std::shared_ptr<Node> folder, Find(path, true));
  folder->synced_entries = folder->entries;
  folder->pending.clear();
  return absl::OkStatus();
}

void SimulatedDisk::Crash() {
  ++counters_.crashes;
  power_out_ = false;
  power_left_ = kUnbounded;
  CrashFolder(root_.get());
}

void SimulatedDisk::CrashFolder(Node* folder) {
  for (const Node::Change& change : folder->pending) {
    if (random_(2) == 0) {
      change.Apply(&folder->synced_entries);
    } else {
      ++counters_.lost_changes;
    }
  }
  folder->pending.clear();
  folder->entries = folder->synced_entries;
  for (const auto& [name, node] : folder->entries) node->folder ? CrashFolder(node.get()) : CrashFile(node.get());
}

void SimulatedDisk::CrashFile(Node* file) {
  const size_t unsynced = file->data.size() - file->synced;
  if (unsynced > 0) {
    const size_t kept = random_(unsynced + 1);
    if (kept == 0) ++counters_.lost_files;
    if (kept > 0 && kept < unsynced) ++counters_.torn_files;
    file->data.resize(file->synced + kept);
  }
  file->synced = file->data.size();
  file->sync_failed = false;
}

uint64_t SimulatedDisk::used() const {
  uint64_t bytes = 0;
  std::vector<const Node*> stack = {root_.get()};
  while (!stack.empty()) {
    const Node* node = stack.back();
    stack.pop_back();
    bytes += node->data.size();
    for (const auto& [name, entry] : node->entries) stack.push_back(entry.get());
  }
  return bytes;
}

void SimulatedDisk::Put(const std::string& path, std::string contents) {
  std::vector<std::string> names = absl::StrSplit(path, '/');
  Node* node = root_.get();
  for (size_t i = 0; i < names.size(); ++i) {
    std::shared_ptr<Node>& next = node->entries[names[i]];
    if (next == nullptr) next = std::make_shared<Node>();
    next->folder = i + 1 < names.size();
    node->synced_entries[names[i]] = next;
    node = next.get();
  }
  node->data = std::move(contents);
  node->synced = node->data.size();
}

}  // namespace descent::testing
