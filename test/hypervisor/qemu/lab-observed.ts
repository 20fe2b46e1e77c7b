// The primary's agent as it is, in a program that looks on: at each pause of the guest, how many frames had left its
// card; and when each acknowledgement was handed to the agent. What it sees it says over IPC.
//
//   card ─▶ dump (counts) ─▶ filter-buffers: open, sealed ─▶ tap0 (captured by somebody else)
//
//   lab-observed.js FILE       FILE: as for romulus agent
//
// Asked to ('open'), it opens the filters by hand each time that the guest goes on: what comes then must look wrong.

import { openSync, readSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { loadCluster } from '../../../src/config/cluster.js';
import { QemuPrimary } from '../../../src/hypervisor/qemu/index.js';
import { openSource } from '../../../src/service/hypervisors.js';
import { createAgent } from '../../../src/service/agent.js';
import { SHARED } from './lab.js';
import { slowAcknowledgements } from './lab-acks.js';
import { framesOf } from './lab-pcap.js';

/** Where the secondary dials, instead of the agent's port. */
export const SLOW_PORT = 7301;
/** The frames as they left the card: a file of the lab. */
export const DUMP = 'card.pcap';
const NETDEV = 'lan';
const DELAY_MS = 20;

export type Observation =
  | { readonly kind: 'started' }
  /** The k-th of them is the pause of the k-th epoch. */
  | { readonly kind: 'paused'; readonly frames: number }
  /** Milliseconds since 1970, whole ones: not later than it was. */
  | { readonly kind: 'acknowledging'; readonly epoch: number; readonly atMs: number };

function say(observation: Observation): void {
  process.send?.(observation);
}

/** The frames in a capture that grows. */
class FrameCounter {
  #file: number | null = null;
  #capture = Buffer.alloc(0);
  #size = 0;

  constructor(private readonly path: string) {}

  count(): number {
    this.#file ??= openSync(this.path, 'r');
    for (;;) {
      if (this.#size === this.#capture.length) {
        this.#capture = Buffer.concat([this.#capture, Buffer.alloc(1 << 20)]);
      }
      const read = readSync(
        this.#file,
        this.#capture,
        this.#size,
        this.#capture.length - this.#size,
        this.#size,
      );
      if (read === 0) break;
      this.#size += read;
    }
    return framesOf(this.#capture.subarray(0, this.#size)).length;
  }
}

function observe(domain: QemuPrimary): void {
  const { qmp } = domain.machine;
  const file = `${SHARED}/${DUMP}`;
  const counter = new FrameCounter(file);
  let open = false;
  process.on('message', () => (open = true));
  const start = domain.start.bind(domain);
  domain.start = async () => {
    await start();
    // Behind the gate's own test, whose frames are not the guest's. Added last, it sees the guest's frames first.
    await qmp.execute('object-add', {
      ...{ 'qom-type': 'filter-dump', id: 'card', netdev: NETDEV, queue: 'rx', file, maxlen: 1 << 17 },
    });
    say({ kind: 'started' });
  };
  const suspend = domain.suspend.bind(domain);
  domain.suspend = async () => {
    await suspend();
    say({ kind: 'paused', frames: counter.count() });
  };
  const resume = domain.resume.bind(domain);
  domain.resume = async () => {
    await resume();
    if (!open) return;
    for (const filter of ['valve', 'open', 'sealed']) {
      const path = `/objects/romulus-${NETDEV}-${filter}`;
      await qmp.execute('qom-set', { path, property: 'status', value: 'off' });
    }
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const config = await loadCluster(process.argv[2] ?? '', 'primary');
  const agent = createAgent(config, {
    openSource: async (section) => {
      const domain = await openSource(section);
      if (domain instanceof QemuPrimary) observe(domain);
      return domain;
    },
  });
  await slowAcknowledgements(
    { host: config.listen.host, port: SLOW_PORT },
    config.listen,
    () => Math.random() * DELAY_MS,
    (epoch) => say({ kind: 'acknowledging', epoch, atMs: Date.now() }),
  );
  await agent.start();
  // The lab's end is ours.
}
