// Seeded damage to messages: flips, cuts, insertions, splices of two messages, lengths that lie.

import { PROTOCOL_VERSION } from '../../src/channel/contract.js';
import type { ControlMessage } from '../../src/channel/wire/message.js';
import { helloOf, STREAM } from './support.js';

const version = { protocolVersion: PROTOCOL_VERSION, software: '0.1.0' };

const held = { streamUuid: STREAM, epoch: 2 ** 40, pairing: 'a1d8c1f2' };
const disks = { images: { streamUuid: STREAM, epoch: 5 }, blankDisks: ['root', 'data'] };
const shared = { streamUuid: STREAM, epoch: 7, digest: 0xfedc_ba98_7654_3210n };

/** At least one of each kind. */
export const validControls: readonly ControlMessage[] = [
  { kind: 'hello', ...helloOf(), ...version },
  { kind: 'hello', ...helloOf('db'), ...version, ...held, shared, ...disks },
  {
    kind: 'hello',
    ...helloOf(),
    ...version,
    inventory: {
      machine: 'pc-q35-7.2',
      devices: 'isa-serial\ne1000 card-lan',
      none: '',
      long: 'x'.repeat(300),
    },
  },
  {
    kind: 'welcome',
    ...version,
    host: 'north',
    streamUuid: STREAM,
    heartbeatIntervalMs: 100,
    heartbeatTimeoutMs: 1000,
    windowEpochs: 1,
    continuous: true,
    resumes: true,
    pairing: 'a1d8c1f2',
  },
  { kind: 'ack', epoch: 0 },
  { kind: 'ack', epoch: Number.MAX_SAFE_INTEGER },
  { kind: 'handed-over', epoch: 7 },
  { kind: 'sums-wanted', disk: 1, first: 70_000, count: 2_048 },
  { kind: 'sums', disk: 1, first: 0, count: 20, sums: new Uint8Array(320).fill(7) },
  { kind: 'durable', point: { streamUuid: STREAM, epoch: 5 } },
  { kind: 'heartbeat' },
  {
    kind: 'checkpoint',
    epoch: 70_000,
    bytes: 5e9,
    digest: 0xfedc_ba98_7654_3210n,
    outputBytes: 12,
    end: false,
    trial: true,
    handOver: true,
  },
  { kind: 'bye', reason: 'domain-ended' },
  { kind: 'error', code: 'UNKNOWN_DOMAIN', message: 'no such domain', facts: { domain: 'x', n: 1 } },
];

export function mutate(bytes: Uint8Array, random: () => number, other: Uint8Array): Buffer {
  let out = Buffer.from(bytes);
  const position = () => Math.floor(random() * out.length);
  const times = 1 + Math.floor(random() * 4);
  for (let i = 0; i < times; i++) {
    switch (Math.floor(random() * 6)) {
      case 0:
        if (out.length > 0) out[position()] = Math.floor(random() * 256);
        break;
      case 1:
        if (out.length > 0) {
          const at = position();
          out[at] = (out[at] ?? 0) ^ (1 << Math.floor(random() * 8));
        }
        break;
      case 2:
        out = out.subarray(0, position());
        break;
      case 3: {
        const at = position();
        const inserted = Buffer.alloc(1 + Math.floor(random() * 8), Math.floor(random() * 256));
        out = Buffer.concat([out.subarray(0, at), inserted, out.subarray(at)]);
        break;
      }
      case 4:
        out = Buffer.concat([
          out.subarray(0, position()),
          other.subarray(Math.floor(random() * other.length)),
        ]);
        break;
      default: {
        // Long forms of length: the marks of str32, bin32, array32, map32 and the like.
        const at = position();
        if (out.length - at >= 5) out.set([0xc6 + Math.floor(random() * 26), 0xff, 0xff, 0xff, 0xff], at);
      }
    }
  }
  return Buffer.from(out);
}
