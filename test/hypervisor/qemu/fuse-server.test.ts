// The file server without a kernel: requests built by hand, answers read back, and requests that no kernel would send.

import { expect } from 'chai';
import fc from 'fast-check';
import {
  IN_HEADER_BYTES,
  Opcode,
  OUT_HEADER_BYTES,
} from '../../../src/hypervisor/qemu/memory/fuse/protocol.js';
import {
  RamFileServer,
  REQUEST_BYTES_MAX,
  type ImageStore,
} from '../../../src/hypervisor/qemu/memory/fuse/server.js';
import { RamImage, SEGMENT_BYTES, allocateImage } from '../../../src/hypervisor/qemu/memory/image.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';

const PAGES = 64;
const BYTES = PAGES * PAGE_SIZE;
const ROOT = 1;
const RAM = 2;

function field(value: number | bigint, bytes: 4 | 8): Buffer {
  const octets = Buffer.alloc(bytes);
  if (bytes === 8) octets.writeBigUInt64LE(BigInt(value));
  else octets.writeUInt32LE(Number(value));
  return octets;
}

function readWrite(offset: number | bigint, size: number, data = Buffer.alloc(0)): Buffer {
  return Buffer.concat([field(7, 8), field(offset, 8), field(size, 4), Buffer.alloc(20), data]);
}

class MemoryStore implements ImageStore {
  readonly bytes = BYTES;
  readonly #octets = Buffer.alloc(BYTES);

  get(at: number, to: Uint8Array): void {
    to.set(this.#octets.subarray(at, at + to.length));
  }

  set(data: Uint8Array, at: number): void {
    this.#octets.set(data, at);
  }
}

describe('qemu: the RAM file’s server', () => {
  let image: MemoryStore;
  let server: RamFileServer;
  const wrote = new Set<number>();

  const ask = (opcode: number, node: number, body: Uint8Array = Buffer.alloc(0)) => {
    const { request } = server;
    const length = IN_HEADER_BYTES + body.length;
    request.fill(0, 0, IN_HEADER_BYTES);
    request.writeUInt32LE(length, 0);
    request.writeUInt32LE(opcode, 4);
    request.writeBigUInt64LE(0xfeedn, 8);
    request.writeBigUInt64LE(BigInt(node), 16);
    request.set(body, IN_HEADER_BYTES);
    const answered = server.serve(length);
    const answer = Buffer.from(server.answer.subarray(0, answered));
    if (answered > 0) {
      expect(answer.readUInt32LE(0)).to.equal(answered);
      expect(answer.readBigUInt64LE(8)).to.equal(0xfeedn);
    }
    return {
      answered,
      errno: answered > 0 ? 0 - answer.readInt32LE(4) : 0,
      body: answer.subarray(OUT_HEADER_BYTES),
    };
  };
  const logged = (): number[] => [...wrote].sort((a, b) => a - b);

  beforeEach(() => {
    image = new MemoryStore();
    wrote.clear();
    server = new RamFileServer(image, (first, pages) => {
      for (let page = first; page < first + pages; page++) wrote.add(page);
    });
  });

  it('has one file, RAM', () => {
    const found = ask(Opcode.LOOKUP, ROOT, Buffer.from('ram\0'));
    expect(found.errno).to.equal(0);
    expect(found.body.length).to.equal(128);
    expect(found.body.readBigUInt64LE(0)).to.equal(BigInt(RAM));
    expect(found.body.readBigUInt64LE(48)).to.equal(BigInt(BYTES));
    expect(found.body.readUInt32LE(100)).to.equal(0o100600);
    expect(ask(Opcode.LOOKUP, ROOT, Buffer.from('rom\0')).errno).to.equal(2);
    expect(ask(Opcode.GETATTR, ROOT).body.readUInt32LE(76)).to.equal(0o040700);
    expect(ask(Opcode.GETATTR, 9).errno).to.equal(2);
    expect(ask(Opcode.STATFS, ROOT).body.length).to.equal(80);
    expect(ask(Opcode.OPEN, RAM).body.readUInt32LE(8), 'keep cache, no flush').to.equal(0x22);
  });

  it('keeps its size', () => {
    const resize = (bytes: number) =>
      ask(
        Opcode.SETATTR,
        RAM,
        Buffer.concat([field(1 << 3, 4), Buffer.alloc(12), field(bytes, 8), Buffer.alloc(64)]),
      );
    expect(resize(BYTES).errno).to.equal(0);
    expect(resize(BYTES - PAGE_SIZE).errno).to.equal(22);
  });

  it('agrees with the kernel on what it can, and refuses one that is too old', () => {
    const init = (major: number, minor: number) =>
      ask(
        Opcode.INIT,
        0,
        Buffer.concat([
          field(major, 4),
          field(minor, 4),
          field(131072, 4),
          field(0xffffffff, 4),
          Buffer.alloc(48),
        ]),
      );
    const { body, errno } = init(7, 40);
    expect(errno).to.equal(0);
    expect(body.length).to.equal(64);
    expect(body.readUInt32LE(12) & (1 << 16), 'writeback cache').to.equal(0);
    expect(body.readUInt32LE(20)).to.equal(1024 * 1024);
    expect(body.readUInt16LE(28)).to.equal(256);
    expect(init(7, 30).errno).to.equal(22);
    expect(init(8, 0).errno).to.equal(22);
  });

  it('reads what was written, and says what was', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(BYTES - 1), fc.uint8Array({ minLength: 1, maxLength: 3 * PAGE_SIZE }))),
        (writes) => {
          const model = Buffer.alloc(BYTES);
          image.set(model, 0);
          wrote.clear();
          const pages = new Set<number>();
          for (const [offset, octets] of writes) {
            const data = Buffer.from(octets.subarray(0, BYTES - offset));
            const { body, errno } = ask(Opcode.WRITE, RAM, readWrite(offset, data.length, data));
            expect([errno, body.readUInt32LE(0)]).to.deep.equal([0, data.length]);
            model.set(data, offset);
            for (let at = offset; at < offset + data.length; at++) pages.add(Math.floor(at / PAGE_SIZE));
          }
          expect(logged()).to.deep.equal([...pages].sort((a, b) => a - b));
          expect(ask(Opcode.READ, RAM, readWrite(0, BYTES)).body.equals(model)).to.equal(true);
          expect(ask(Opcode.READ, RAM, readWrite(BYTES - 5, 100)).body.equals(model.subarray(-5))).to.equal(
            true,
          );
        },
      ),
      { numRuns: 30 },
    );
  });

  it('answers nonsense with an error, or not at all, and stays as it was', () => {
    expect(ask(Opcode.WRITE, RAM, readWrite(BYTES - 1, 2, Buffer.alloc(2))).errno).to.equal(22);
    expect(ask(Opcode.WRITE, RAM, readWrite(0, 100, Buffer.alloc(2))).errno).to.equal(22);
    expect(ask(Opcode.WRITE, ROOT, readWrite(0, 2, Buffer.alloc(2))).errno).to.equal(22);
    expect(ask(Opcode.READ, RAM, readWrite(2n ** 63n, 100)).body.length).to.equal(0);
    expect(ask(Opcode.READ, RAM, readWrite(0, 2 ** 31)).errno).to.equal(22);
    expect(ask(Opcode.FSYNC, RAM).errno).to.equal(38);
    expect(ask(Opcode.FORGET, RAM, Buffer.alloc(8)).answered).to.equal(0);
    expect(server.serve(10)).to.equal(0);
    fc.assert(
      fc.property(fc.nat(50), fc.nat(3), fc.uint8Array({ maxLength: 200 }), (opcode, node, body) => {
        const { answered } = ask(opcode, node, body);
        expect(answered).to.be.at.most(server.answer.length);
      }),
      { numRuns: 2000 },
    );
    expect(REQUEST_BYTES_MAX).to.be.at.least(1024 * 1024 + 80);
  });
});

describe('qemu: the image of dirty tracking by comparison', () => {
  it('has its pages in segments, however large it is', () => {
    const large = new RamImage(allocateImage(SEGMENT_BYTES + BYTES)); // costs what is written
    expect(large.bytes).to.equal(SEGMENT_BYTES + BYTES);
    const last = SEGMENT_BYTES / PAGE_SIZE - 1;
    for (const pfn of [last, last + 1, last + 2]) {
      const at = (pfn * PAGE_SIZE) % SEGMENT_BYTES;
      large.segment(pfn * PAGE_SIZE).fill(pfn - last + 1, at, at + PAGE_SIZE);
    }
    const page = Buffer.alloc(2 * PAGE_SIZE);
    for (const pfn of [last, last + 1, last + 2]) {
      large.copyPage(pfn, page, PAGE_SIZE);
      expect(page.subarray(PAGE_SIZE).equals(Buffer.alloc(PAGE_SIZE, pfn - last + 1))).to.equal(true);
    }
    large.copyPage(0, page, 0);
    expect(page.subarray(0, PAGE_SIZE).equals(Buffer.alloc(PAGE_SIZE))).to.equal(true);
    expect(() => large.copyPage(SEGMENT_BYTES, page, 0)).to.throw(RangeError);
  });
});
