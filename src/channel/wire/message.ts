// The messages of the channel. The first octet of a WebSocket message is its kind:
//
//   | 1 | a msgpack map: {kind: "hello", …}, "welcome", "ack", "heartbeat", "checkpoint", "handed-over", "bye", "error",
//       | "sums-wanted", "sums", "durable": of disks
//   | 2 | a piece of the migration stream, raw
//
// Kind 3 is kept for the back channel (COLO) and refused until then. Fields that a message has beyond those of its
// kind are ignored; what is missing, of a wrong type, too long or out of range is BAD_MESSAGE, with the field named.

import { Packr } from 'msgpackr';
import { asError, type Fact, type Facts } from '../../errors.js';
import {
  INVENTORY_FACTS_MAX,
  INVENTORY_NAME_MAX,
  INVENTORY_TEXT_BYTES_MAX,
  type Inventory,
} from '../../hypervisor/inventory.js';
import type { DiskPoint } from '../../hypervisor/port-disks.js';
import { SUM_BYTES } from '../../disk/sums.js';
import { PFN_MAX } from '../../stream/format.js';
import { isChannelErrorCode } from './close-codes.js';
import {
  ChannelError,
  PROTOCOL_VERSION,
  type ByeReason,
  type ChannelErrorCode,
  SUMS_MAX,
  type ChunkRange,
  type Hello,
  type SharedPoint,
  type Welcome,
} from '../contract.js';
import { CONTROL_BYTES_MAX } from '../limits.js';
import { checkPlainMap } from './plain-map.js';

export const MessageKind = { CONTROL: 1, PIECE: 2 } as const;

export interface CheckpointMessage {
  readonly kind: 'checkpoint';
  readonly epoch: number;
  /** Octets of the stream since the last boundary, never 0. */
  readonly bytes: number;
  /** xxh3-64 of those octets. On the wire: 8 octets, big-endian. */
  readonly digest: bigint;
  readonly outputBytes: number;
  readonly end: boolean;
  readonly trial: boolean;
  readonly handOver: boolean;
}

export interface ErrorMessage {
  readonly kind: 'error';
  readonly code: ChannelErrorCode;
  readonly message: string;
  readonly facts: Facts;
}

export interface HelloMessage extends Hello {
  readonly kind: 'hello';
  /** That the secondary knows the token (token.ts); left out where none is asked for. */
  readonly proof?: string;
}

export type ControlMessage =
  | HelloMessage
  | ({ readonly kind: 'welcome' } & Welcome)
  | { readonly kind: 'ack' | 'handed-over'; readonly epoch: number }
  | { readonly kind: 'heartbeat' }
  | CheckpointMessage
  | ({ readonly kind: 'sums-wanted' } & ChunkRange)
  | ({ readonly kind: 'sums'; readonly sums: Uint8Array } & ChunkRange)
  | { readonly kind: 'durable'; readonly point: DiskPoint }
  | { readonly kind: 'bye'; readonly reason: ByeReason }
  | ErrorMessage;

export const NAME_MAX = 255;
export const TEXT_MAX = 1_024;
const MILLISECONDS_MAX = 24 * 3600 * 1000;
const WINDOW_MAX = 1_024;

const packr = new Packr({ useRecords: false });

/**
 * The control message in a WebSocket message of kind 1 (whole, kind included).
 * @throws ChannelError MESSAGE_TOO_LARGE, BAD_MESSAGE; PROTOCOL_VERSION for a hello or welcome of another version
 */
export function decodeControl(bytes: Uint8Array): ControlMessage {
  if (bytes.length > CONTROL_BYTES_MAX) {
    const facts = { bytes: bytes.length, limit: CONTROL_BYTES_MAX };
    throw new ChannelError('MESSAGE_TOO_LARGE', 'a control message is too large', facts);
  }
  if (bytes[0] !== MessageKind.CONTROL) {
    throw new ChannelError('BAD_MESSAGE', 'a message is of no known kind', { kind: bytes[0] ?? null });
  }
  checkPlainMap(bytes, 1);
  let value: unknown;
  try {
    value = packr.unpack(bytes.subarray(1));
  } catch (thrown) {
    const cause = asError(thrown);
    throw new ChannelError('BAD_MESSAGE', 'a control message cannot be unpacked', {}, { cause });
  }
  return new Fields(value).message();
}

/** Reads one message's fields, each checked as it is read. */
class Fields {
  readonly #map: Readonly<Record<string, unknown>>;
  #kind: string;

  constructor(value: unknown, kind = '') {
    this.#kind = kind;
    // The look before unpacking has seen a map; the unpacker makes a plain object of it.
    this.#map = value as Readonly<Record<string, unknown>>;
  }

  /** @throws ChannelError BAD_MESSAGE, PROTOCOL_VERSION */
  message(): ControlMessage {
    this.#kind = this.#text('kind', 32);
    switch (this.#kind) {
      case 'hello':
        return this.#hello();
      case 'welcome':
        return this.#welcome();
      case 'ack':
      case 'handed-over':
        return { kind: this.#kind, epoch: this.#integer('epoch') };
      case 'heartbeat':
        return { kind: 'heartbeat' };
      case 'checkpoint':
        return {
          kind: 'checkpoint',
          epoch: this.#integer('epoch'),
          bytes: this.#integer('bytes', 1),
          digest: this.#digest('digest'),
          outputBytes: this.#integer('outputBytes'),
          end: this.#flag('end'),
          trial: this.#flag('trial'),
          handOver: this.#flag('handOver'),
        };
      case 'sums-wanted':
        return { kind: 'sums-wanted', ...this.#chunks() };
      case 'sums':
        return { kind: 'sums', ...this.#chunks(), sums: this.#sums() };
      case 'durable':
        return { kind: 'durable', point: this.#point('point') };
      case 'bye':
        return { kind: 'bye', reason: this.#oneOf('reason', ['domain-ended', 'shutdown']) };
      case 'error':
        return this.#error();
      default:
        throw this.#bad('kind', 'is unknown');
    }
  }

  #hello(): ControlMessage {
    return {
      kind: 'hello',
      protocolVersion: this.#version(),
      domain: this.#text('domain', NAME_MAX),
      software: this.#text('software', NAME_MAX),
      host: this.#text('host', NAME_MAX),
      hypervisor: this.#text('hypervisor', NAME_MAX),
      domainType: this.#integer('domainType', 0, 0xffffffff),
      p2mSize: this.#integer('p2mSize', 0, PFN_MAX + 1),
      inventory: this.#inventory('inventory'),
      streamUuid: this.#value('streamUuid') === null ? null : this.#text('streamUuid', NAME_MAX),
      epoch: this.#value('epoch') === null ? null : this.#integer('epoch'),
      pairing: this.#value('pairing') === null ? null : this.#text('pairing', NAME_MAX),
      shared: this.#value('shared') === null ? null : this.#sharedPoint('shared'),
      images: this.#value('images') === null ? null : this.#point('images'),
      blankDisks: this.#entries('blankDisks').map(([id]) => id),
      ...(Object.hasOwn(this.#map, 'proof') && { proof: this.#text('proof', NAME_MAX) }),
    };
  }

  #sharedPoint(field: string): SharedPoint {
    return { ...this.#point(field), digest: this.#within(field).#digest('digest') };
  }

  #point(field: string): DiskPoint {
    const point = this.#within(field);
    return { streamUuid: point.#text('streamUuid', NAME_MAX), epoch: point.#integer('epoch') };
  }

  #within(field: string): Fields {
    return new Fields(Object.fromEntries(this.#entries(field)), `${this.#kind}.${field}`);
  }

  #chunks(): ChunkRange {
    return {
      disk: this.#integer('disk'),
      first: this.#integer('first'),
      count: this.#integer('count', 1, SUMS_MAX),
    };
  }

  #sums(): Uint8Array {
    const sums = this.#value('sums');
    const count = this.#integer('count');
    if (!(sums instanceof Uint8Array) || sums.length !== count * SUM_BYTES)
      throw this.#bad('sums', `is not ${count} sums`);
    return sums;
  }

  /** A map of texts. Not there: empty. */
  #inventory(field: string): Inventory {
    if (!Object.hasOwn(this.#map, field)) return {};
    const entries = this.#entries(field);
    if (entries.length > INVENTORY_FACTS_MAX) throw this.#bad(field, 'has too many facts');
    return Object.fromEntries(
      entries.map(([name, text]) => {
        if (name.length > INVENTORY_NAME_MAX) throw this.#bad(field, 'has a name that is too long');
        if (typeof text !== 'string') throw this.#bad(field, 'holds more than texts');
        if (text.length > INVENTORY_TEXT_BYTES_MAX) throw this.#bad(field, 'has a text that is too long');
        return [name, text];
      }),
    );
  }

  #welcome(): ControlMessage {
    return {
      kind: 'welcome',
      protocolVersion: this.#version(),
      software: this.#text('software', NAME_MAX),
      host: this.#text('host', NAME_MAX),
      streamUuid: this.#text('streamUuid', NAME_MAX),
      heartbeatIntervalMs: this.#integer('heartbeatIntervalMs', 1, MILLISECONDS_MAX),
      heartbeatTimeoutMs: this.#integer('heartbeatTimeoutMs', 1, MILLISECONDS_MAX),
      windowEpochs: this.#integer('windowEpochs', 1, WINDOW_MAX),
      continuous: this.#flag('continuous'),
      resumes: this.#flag('resumes'),
      pairing: this.#text('pairing', NAME_MAX),
    };
  }

  #error(): ErrorMessage {
    const code = this.#text('code', NAME_MAX);
    const facts: Record<string, Fact> = {};
    for (const [name, value] of this.#entries('facts')) {
      if (typeof value === 'object' && value !== null) throw this.#bad('facts', 'holds more than scalars');
      facts[name] = value as Fact;
    }
    // A later version may know more codes: what it says stays in the facts.
    const known = isChannelErrorCode(code);
    return {
      kind: 'error',
      code: known ? code : 'INTERNAL',
      message: this.#text('message', TEXT_MAX),
      facts: known ? facts : { ...facts, code },
    };
  }

  /** Read before everything else of its message: another version's fields may be others. */
  #version(): number {
    const version = this.#integer('protocolVersion');
    if (version !== PROTOCOL_VERSION) {
      const message = `the other side speaks version ${version} of the protocol`;
      throw new ChannelError('PROTOCOL_VERSION', message, { ours: PROTOCOL_VERSION, theirs: version });
    }
    return version;
  }

  #value(field: string): unknown {
    if (!Object.hasOwn(this.#map, field)) throw this.#bad(field, 'is missing');
    return this.#map[field];
  }

  /** Those of a map in the map. */
  #entries(field: string): [string, unknown][] {
    const map = this.#value(field);
    if (typeof map !== 'object' || map === null || map instanceof Uint8Array) {
      throw this.#bad(field, 'is not a map');
    }
    return Object.entries(map);
  }

  #text(field: string, charactersMax: number): string {
    const value = this.#value(field);
    if (typeof value !== 'string') throw this.#bad(field, 'is not a string');
    if (value.length > charactersMax) throw this.#bad(field, 'is too long');
    return value;
  }

  #integer(field: string, min = 0, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#value(field);
    if (typeof value !== 'number' || !Number.isSafeInteger(value))
      throw this.#bad(field, 'is not an integer');
    if (value < min || value > max) throw this.#bad(field, 'is out of range');
    return value;
  }

  #flag(field: string): boolean {
    const value = this.#value(field);
    if (typeof value !== 'boolean') throw this.#bad(field, 'is not a boolean');
    return value;
  }

  #digest(field: string): bigint {
    const value = this.#value(field);
    if (!(value instanceof Uint8Array) || value.length !== 8) throw this.#bad(field, 'is not 8 octets');
    return new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0);
  }

  #oneOf<Name extends string>(field: string, names: readonly Name[]): Name {
    const value = this.#text(field, NAME_MAX);
    for (const name of names) if (name === value) return name;
    throw this.#bad(field, 'has an unknown value');
  }

  #bad(field: string, problem: string): ChannelError {
    const facts = { message: this.#kind.slice(0, 32), field, problem };
    return new ChannelError('BAD_MESSAGE', `a control message's field "${field}" ${problem}`, facts);
  }
}
