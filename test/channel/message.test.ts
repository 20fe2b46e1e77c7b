// Control messages there and back, and everything that is not one.

import { expect } from 'chai';
import fc from 'fast-check';
import { pack } from 'msgpackr';
import { RomulusError } from '../../src/errors.js';
import { ChannelError, PROTOCOL_VERSION } from '../../src/channel/contract.js';
import { encodeControl } from '../../src/channel/wire/encode.js';
import { decodeControl, type ControlMessage } from '../../src/channel/wire/message.js';
import {
  INVENTORY_FACTS_MAX,
  INVENTORY_NAME_MAX,
  INVENTORY_TEXT_BYTES_MAX,
} from '../../src/hypervisor/inventory.js';
import { StreamError } from '../../src/stream/error.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import { StreamDigest } from '../../src/channel/link/digest.js';
import { concatenate } from '../../src/stream/writer.js';
import { bulkRecord, checkpointRecord, helloOf, seeded, streamHeaders } from './support.js';
import { mutate, validControls } from './mutations.js';

const version = { protocolVersion: PROTOCOL_VERSION, software: '0.1.0' };

function refusal(bytes: Uint8Array): ChannelError {
  try {
    decodeControl(bytes);
  } catch (thrown) {
    if (thrown instanceof ChannelError) return thrown;
    throw thrown;
  }
  throw new Error('was taken for a message');
}

const control = (value: unknown) => Buffer.concat([Buffer.from([1]), pack(value)]);
const raw = (...octets: number[]) => Buffer.from([1, ...octets]);

describe('control messages', () => {
  it('decode to what was encoded', () => {
    for (const message of validControls) expect(decodeControl(encodeControl(message))).to.deep.equal(message);
  });

  it('carry facts of every kind, cut to size', () => {
    const message: ControlMessage = {
      kind: 'error',
      code: 'DIGEST_MISMATCH',
      message: 'x'.repeat(5000),
      facts: { big: 2n ** 63n, none: undefined, nil: null, yes: true, long: 'y'.repeat(5000) },
    };
    const decoded = decodeControl(encodeControl(message));
    if (decoded.kind !== 'error') throw new Error('another kind');
    expect(decoded.message.length).to.equal(1024);
    expect(decoded.facts).to.deep.equal({
      big: '9223372036854775808',
      nil: null,
      yes: true,
      long: 'y'.repeat(255),
    });
  });

  it('keep a code that this version does not know in the facts', () => {
    const decoded = decodeControl(control({ kind: 'error', code: 'LATER', message: 'm', facts: {} }));
    expect(decoded).to.deep.include({ code: 'INTERNAL', facts: { code: 'LATER' } });
  });

  it('ignore fields beyond their own, whatever they are called', () => {
    const message = raw(0x83, ...str('kind'), ...str('ack'), ...str('epoch'), 7, ...str('__proto__'), 0x80);
    expect(decodeControl(message)).to.deep.equal({ kind: 'ack', epoch: 7 });
  });

  it('a hello without an inventory has an empty one', () => {
    const { inventory, ...older } = hello;
    expect(inventory).to.deep.equal({});
    const decoded = decodeControl(control(older));
    expect(decoded.kind === 'hello' && decoded.inventory).to.deep.equal({});
  });

  it('inventories of whatever texts cross as they are, the largest too', () => {
    const fact = fc
      .string({ maxLength: INVENTORY_NAME_MAX, unit: 'grapheme-ascii' })
      .filter((name) => name !== '__proto__');
    const text = fc.string({ maxLength: 200, unit: 'grapheme' }).filter((s) => s.length <= 200);
    const largest = Object.fromEntries(
      Array.from({ length: INVENTORY_FACTS_MAX }, (_, index) => [
        String(index).padStart(INVENTORY_NAME_MAX, 'n'),
        'x'.repeat(INVENTORY_TEXT_BYTES_MAX),
      ]),
    );
    fc.assert(
      fc.property(fc.dictionary(fact, text, { maxKeys: INVENTORY_FACTS_MAX }), (inventory) => {
        const message: ControlMessage = { kind: 'hello', ...helloOf(), ...version, inventory };
        expect(decodeControl(encodeControl(message))).to.deep.equal(message);
      }),
      { examples: [[largest]] },
    );
  });

  it('of another version are named as such, whatever else they hold', () => {
    expect(refusal(control({ kind: 'hello', protocolVersion: PROTOCOL_VERSION + 1 }))).to.include({
      code: 'PROTOCOL_VERSION',
    });
    expect(refusal(control({ kind: 'welcome', protocolVersion: 0 })).facts).to.deep.equal({
      ours: PROTOCOL_VERSION,
      theirs: 0,
    });
  });

  it('a hello has no say in who runs the domain: such a field is ignored as any other that is unknown', () => {
    const said = { ...hello, role: 'active' };
    expect(decodeControl(control(said))).to.deep.equal({ kind: 'hello', ...helloOf(), ...version });
  });

  const hello = { kind: 'hello', ...helloOf(), ...version, blankDisks: {} };
  const shared = { streamUuid: 'A', epoch: 7, digest: Buffer.alloc(8) };
  const welcome = {
    ...{
      kind: 'welcome',
      ...version,
      host: 'north',
      streamUuid: 'A',
      pairing: 'A',
      continuous: false,
      resumes: false,
    },
    ...{ heartbeatIntervalMs: 100, heartbeatTimeoutMs: 1000, windowEpochs: 1 },
  };
  const checkpoint = {
    kind: 'checkpoint',
    epoch: 1,
    bytes: 8,
    digest: Buffer.alloc(8),
    outputBytes: 0,
    end: false,
  };
  const wrong: [string, unknown, string][] = [
    ['no kind', {}, 'kind'],
    ['unknown kind', { kind: 'greeting' }, 'kind'],
    ['kind of a prototype', { kind: 'constructor' }, 'kind'],
    ['missing field', { kind: 'ack' }, 'epoch'],
    ['wrong type', { kind: 'ack', epoch: '1' }, 'epoch'],
    ['negative', { kind: 'ack', epoch: -1 }, 'epoch'],
    ['fraction', { kind: 'ack', epoch: 1.5 }, 'epoch'],
    ['NaN', { kind: 'ack', epoch: NaN }, 'epoch'],
    ['beyond 2^53', { kind: 'ack', epoch: 2n ** 60n }, 'epoch'],
    ['too long', { ...hello, domain: 'd'.repeat(256) }, 'domain'],
    ['out of range', { ...hello, p2mSize: 2 ** 33 }, 'p2mSize'],
    ['inventory as text', { ...hello, inventory: 'q35' }, 'inventory'],
    ['inventory of numbers', { ...hello, inventory: { machine: 7 } }, 'inventory'],
    ['inventory as octets', { ...hello, inventory: Buffer.from('q35') }, 'inventory'],
    ['inventory null', { ...hello, inventory: null }, 'inventory'],
    [
      'inventory of too many facts',
      { ...hello, inventory: Object.fromEntries(Array.from({ length: 17 }, (_, k) => [`fact ${k}`, ''])) },
      'inventory',
    ],
    ['inventory with a long name', { ...hello, inventory: { ['n'.repeat(33)]: '' } }, 'inventory'],
    ['inventory with a long text', { ...hello, inventory: { machine: 'm'.repeat(3073) } }, 'inventory'],
    ['epoch null is not undefined', { ...hello, streamUuid: 7 }, 'streamUuid'],
    ['host as number', { ...hello, host: 7 }, 'host'],
    ['host null', { ...hello, host: null }, 'host'],
    ['pairing as number', { ...hello, pairing: 7 }, 'pairing'],
    ['long pairing', { ...hello, pairing: 'p'.repeat(256) }, 'pairing'],
    ['shared as text', { ...hello, shared: 'A' }, 'shared'],
    ['shared without an epoch', { ...hello, shared: { streamUuid: 'A', digest: Buffer.alloc(8) } }, 'epoch'],
    ['shared of a short digest', { ...hello, shared: { ...shared, digest: Buffer.alloc(7) } }, 'digest'],
    [
      'shared of a long stream',
      { ...hello, shared: { ...shared, streamUuid: 's'.repeat(256) } },
      'streamUuid',
    ],
    ['images as text', { ...hello, images: 'A' }, 'images'],
    ['images without an epoch', { ...hello, images: { streamUuid: 'A' } }, 'epoch'],
    ['blank disks as text', { ...hello, blankDisks: 'root' }, 'blankDisks'],
    ['sums of no chunk', { kind: 'sums-wanted', disk: 0, first: 0, count: 0 }, 'count'],
    ['sums of too many', { kind: 'sums-wanted', disk: 0, first: 0, count: 2049 }, 'count'],
    ['sums too few', { kind: 'sums', disk: 0, first: 0, count: 2, sums: Buffer.alloc(31) }, 'sums'],
    ['a durable point as null', { kind: 'durable', point: null }, 'point'],
    ['welcome that says not whether it resumes', { ...welcome, resumes: null }, 'resumes'],
    ['welcome without a host', { ...welcome, host: null }, 'host'],
    ['welcome without a pairing', { ...welcome, pairing: null }, 'pairing'],
    ['empty checkpoint', { ...checkpoint, bytes: 0 }, 'bytes'],
    ['short digest', { ...checkpoint, digest: Buffer.alloc(7) }, 'digest'],
    ['digest as string', { ...checkpoint, digest: '12345678' }, 'digest'],
    ['end as number', { ...checkpoint, end: 1 }, 'end'],
    ['reason', { kind: 'bye', reason: 'tired' }, 'reason'],
    ['facts', { kind: 'error', code: 'INTERNAL', message: '', facts: null }, 'facts'],
  ];
  for (const [what, value, field] of wrong) {
    it(`refuse: ${what}`, () => {
      const error = refusal(control(value));
      expect(error.code).to.equal('BAD_MESSAGE');
      expect(error.facts['field']).to.equal(field);
    });
  }

  const hostile: [string, Uint8Array][] = [
    ['nothing', Buffer.alloc(0)],
    ['a kind and nothing', raw()],
    ['the kind kept for the back channel', Buffer.from([3, 0x80])],
    ['no map', raw(0x01)],
    ['an array of 2^32', raw(0xdd, 0xff, 0xff, 0xff, 0xff)],
    ['a map of 2^32', raw(0xdf, 0xff, 0xff, 0xff, 0xff)],
    ['a map of 2^16', raw(0xde, 0xff, 0xff)],
    ['a value that is an array of 2^30', raw(0x81, ...str('kind'), 0xdd, 0x40, 0, 0, 0)],
    ['a string of 2^32', raw(0x81, ...str('kind'), 0xdb, 0xff, 0xff, 0xff, 0xff)],
    ['binary of 2^32', raw(0x81, ...str('kind'), 0xc6, 0xff, 0xff, 0xff, 0xff)],
    ['an extension', raw(0x81, ...str('kind'), 0xc7, 4, 0x62, 0, 0, 0, 0)],
    ['a record definition', raw(0x81, ...str('kind'), 0xd4, 0x72, 0x40)],
    ['octets left over', Buffer.concat([encodeControl({ kind: 'heartbeat' }), Buffer.from([0xc0])])],
    ['a key that is a number', raw(0x81, 1, 1)],
    ['deep nesting', raw(...Array<number[]>(3000).fill([0x81, 0xa1, 0x61]).flat(), 0xc0)],
  ];
  for (const [what, bytes] of hostile) {
    it(`refuse, unpacking nothing: ${what}`, () => {
      expect(refusal(bytes).code).to.equal('BAD_MESSAGE');
    });
  }

  it('refuse what is too large before looking at it', () => {
    expect(refusal(Buffer.alloc(64 * 1024 + 1, 1)).code).to.equal('MESSAGE_TOO_LARGE');
  });
});

describe('20,000 mutated messages', () => {
  it('are refused with a typed error, or are messages', () => {
    const random = seeded(20_000);
    const piece = concatenate([streamHeaders, bulkRecord(100, 1), checkpointRecord]);
    const bodies = [...validControls.map(encodeControl), Buffer.concat([Buffer.from([2]), piece])];
    let refused = 0;
    for (let i = 0; i < 20_000; i++) {
      const body = bodies[i % bodies.length] ?? piece;
      const bytes = mutate(body, random, bodies[(i * 7) % bodies.length] ?? body);
      try {
        if (bytes[0] === 2) readPiece(bytes.subarray(1));
        else expect(decodeControl(encodeControl(decodeControl(bytes)))).to.deep.equal(decodeControl(bytes));
      } catch (thrown) {
        if (!(thrown instanceof RomulusError)) throw thrown;
        refused++;
      }
    }
    expect(refused).to.be.greaterThan(5_000).and.lessThan(20_000);
  });
});

function readPiece(bytes: Uint8Array): void {
  new StreamDigest().update(bytes);
  const reader = new RecordReader();
  reader.push(bytes);
  while (reader.next() !== null);
  try {
    reader.end();
  } catch (thrown) {
    expect(thrown).to.be.instanceOf(StreamError);
  }
}

function str(text: string): number[] {
  return [0xa0 + text.length, ...Buffer.from(text)];
}
