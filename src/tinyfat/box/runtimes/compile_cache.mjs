// Preloaded into node. Node writes its compile cache only when a process ends by itself; a gateway runs for weeks and may
// be killed. So it is written once the first work is done, and the next start takes 8 s instead of 12.
import { flushCompileCache } from "node:module";
import { isMainThread } from "node:worker_threads";

const FLUSH_AFTER_MS = [20_000, 120_000];

if (isMainThread) {
  for (const delay of FLUSH_AFTER_MS) setTimeout(() => flushCompileCache(), delay).unref();
}
