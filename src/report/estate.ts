// What a secondary leaves to whoever protects the domain that it has taken over: the domain, which runs, and its ways
// out. Nothing that it says is lost or said twice on the way: the gate stays the one that it is.

import type { Subscription } from 'rxjs';
import type { SourceDomain } from '../hypervisor/port.js';
import type { ByteGate } from '../output/byte-gate.js';
import type { FreshOutlet } from '../output/fresh-outlet.js';
import type { Outlet } from '../output/outlet.js';
import type { Tap } from '../output/tap.js';

export interface Estate {
  readonly domain: SourceDomain;
  /** Passing, and fed by the domain as long as `feed` lasts. */
  readonly gate: ByteGate;
  readonly feed: Subscription;
  /** What the gate writes to. */
  readonly outlet: FreshOutlet;
  /** What that writes to. */
  readonly console: Outlet;
  readonly tap: Tap | null;
}
