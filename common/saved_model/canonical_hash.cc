#include "common/saved_model/canonical_hash.h"

#include <openssl/evp.h>

#include <bit>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "common/base/check.h"

namespace descent {

static_assert(std::endian::native == std::endian::little, "floats and integers are hashed as they lie in memory");

struct CanonicalHash::Context {
  EVP_MD_CTX* evp = nullptr;
  // Rows of few floats would each pay for a call into libcrypto.
  static constexpr size_t kBuffer = 16 << 10;
  size_t used = 0;
  unsigned char buffer[kBuffer];
};

CanonicalHash::CanonicalHash() : context_(std::make_unique<Context>()) {
  context_->evp = EVP_MD_CTX_new();
  DESCENT_CHECK(context_->evp != nullptr && EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

CanonicalHash::~CanonicalHash() { EVP_MD_CTX_free(context_->evp); }

void CanonicalHash::Update(const void* data, size_t bytes) {
  Context& c = *context_;
  if (c.used + bytes > Context::kBuffer) {
    DESCENT_CHECK(EVP_DigestUpdate(c.evp, c.buffer, c.used) == 1);
    c.used = 0;
  }
  if (bytes > Context::kBuffer) {
    DESCENT_CHECK(EVP_DigestUpdate(c.evp, data, bytes) == 1);
  } else if (bytes > 0) {
    std::memcpy(c.buffer + c.used, data, bytes);
    c.used += bytes;
  }
}

void CanonicalHash::U64(uint64_t value) { Update(&value, sizeof(value)); }

void CanonicalHash::EndTensor() {
  if (in_table_) U64(rows_);
  in_table_ = false;
  rows_ = 0;
}

void CanonicalHash::Begin(const TensorSpec& spec, uint32_t optimizer_slots) {
  EndTensor();
  Update(spec.name.data(), spec.name.size());
  const char mark[2] = {0, optimizer_slots > 0 ? (spec.sparse ? 't' : 'd') : (spec.sparse ? 'T' : 'D')};
  Update(mark, 2);
  U64(spec.shape.size());
  for (uint64_t dimension : spec.shape) U64(dimension);
  if (optimizer_slots > 0) U64(optimizer_slots);
  in_table_ = spec.sparse;
}

void CanonicalHash::Floats(absl::Span<const float> values) { Update(values.data(), values.size() * sizeof(float)); }

void CanonicalHash::Key(uint64_t key) {
  DESCENT_CHECK(in_table_);
  ++rows_;
  U64(key);
}

std::string CanonicalHash::Finish() {
  EndTensor();
  Context& c = *context_;
  DESCENT_CHECK(EVP_DigestUpdate(c.evp, c.buffer, c.used) == 1);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  DESCENT_CHECK(EVP_DigestFinal_ex(c.evp, digest, &length) == 1);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), length));
}

}  // namespace descent
