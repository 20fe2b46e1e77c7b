// Control messages as octets (message.ts reads them).

import { Packr } from 'msgpackr';
import type { Fact, Facts } from '../../errors.js';
import { MessageKind, NAME_MAX, TEXT_MAX, type ControlMessage } from './message.js';

const FACTS_MAX = 32;

const packr = new Packr({ useRecords: false });
const kindOctet = Buffer.from([MessageKind.CONTROL]);

/** The octets of a control message, kind first. */
export function encodeControl(message: ControlMessage): Buffer {
  return Buffer.concat([kindOctet, packr.pack(wireForm(message))]);
}

function wireForm(message: ControlMessage): object {
  if (message.kind === 'checkpoint') return { ...message, digest: wireDigest(message.digest) };
  if (message.kind === 'hello') {
    const { shared, blankDisks } = message;
    return {
      ...message,
      shared: shared && { ...shared, digest: wireDigest(shared.digest) },
      blankDisks: Object.fromEntries(blankDisks.map((id) => [id, true])),
    };
  }
  if (message.kind === 'error') {
    return { ...message, message: message.message.slice(0, TEXT_MAX), facts: wireFacts(message.facts) };
  }
  return message;
}

function wireDigest(digest: bigint): Buffer {
  const octets = Buffer.allocUnsafe(8);
  octets.writeBigUInt64BE(digest);
  return octets;
}

function wireFacts(facts: Facts): Record<string, Fact> {
  const out: Record<string, Fact> = {};
  for (const [name, value] of Object.entries(facts).slice(0, FACTS_MAX)) {
    if (value === undefined) continue;
    if (typeof value === 'bigint') out[name.slice(0, 32)] = value.toString();
    else out[name.slice(0, 32)] = typeof value === 'string' ? value.slice(0, NAME_MAX) : value;
  }
  return out;
}
