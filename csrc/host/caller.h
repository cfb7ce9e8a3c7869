// Who makes a call, as far as the executor has to know.
#pragma once

namespace blinkcoll {

struct Caller {
  virtual ~Caller() = default;
  // The call is about to wait for more than a moment, or has much to move: locks that others need, an interpreter's, are to
  // be let go of. It may be said more than once.
  virtual void takes_long() {}
  // Whether the call is to end. Asked ten times a second while it sleeps, after takes_long().
  virtual bool interrupted() { return false; }
};

}  // namespace blinkcoll
