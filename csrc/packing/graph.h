// The capacitated digraph that the packers work on: ranks are 0..nranks-1, switches follow.
#pragma once

#include <numeric>
#include <vector>

namespace blinkcoll::packing {

template <class Int>
struct Arc {
  int from, to;
  Int cap;
};

template <class Int>
struct Digraph {
  int n = 0;       // vertices
  int nranks = 0;  // the first of them
  std::vector<Arc<Int>> arcs;
};

// A rate t = num / den and the vertex set that proves that no more is possible.
template <class Int>
struct RootCut {
  Int num = 0, den = 1;
  std::vector<char> inside;
};

template <class Int>
Int gcd_of(Int a, Int b) {
  while (b != 0) {
    Int r = a % b;
    a = b;
    b = r;
  }
  return a < 0 ? -a : a;
}

}  // namespace blinkcoll::packing
