// The processes of the channel's benchmark. Each does one role and reports over IPC; the parent kills it.
//
//   raw-server, raw-client    plain TCP, the reference
//   primary, secondary        the link: pages in checkpoints, digest on, each acknowledged

import { connect, createServer, type AddressInfo } from 'node:net';
import { randomFillSync } from 'node:crypto';
import { filter, firstValueFrom } from 'rxjs';
import type { PrimaryLink } from '../../src/channel/contract.js';
import { dial } from '../../src/channel/dialer.js';
import { PrimaryListener } from '../../src/channel/primary-listener.js';
import { HEADROOM } from '../../src/stream/flow.js';
import {
  MAX_BATCH_SIZE,
  PAGE_DATA_HEADER_BYTES,
  PAGE_SIZE,
  RECORD_HEADER_BYTES,
  RecordType,
} from '../../src/stream/format.js';
import { PageBatch, decodePageData } from '../../src/stream/page-data.js';
import {
  encodeHeaders,
  encodeRecord,
  writePageDataHeader,
  writePfnEntry,
  writeRecordHeader,
} from '../../src/stream/writer.js';

const MIB = 1024 * 1024;
const MEMORY_BYTES = 256 * MIB;
const CHECKPOINT_BYTES = 64 * MIB;
const PIECE_BODY = PAGE_DATA_HEADER_BYTES + MAX_BATCH_SIZE * (8 + PAGE_SIZE);
const PIECE_BYTES = RECORD_HEADER_BYTES + PIECE_BODY;
const PIECES = CHECKPOINT_BYTES / (MAX_BATCH_SIZE * PAGE_SIZE);

function report(what: object): void {
  process.send?.({ ...what, rssMiB: process.resourceUsage().maxRSS / 1024 });
}

/** `total` octets in messages of a piece's size, written as fast as they are taken. */
async function rawServer(total: number): Promise<void> {
  const message = randomFillSync(Buffer.alloc(PIECE_BYTES));
  const server = createServer({ noDelay: true }, (socket) => {
    const started = performance.now();
    let left = Math.ceil(total / PIECE_BYTES);
    let underWay = 0;
    const next = () => {
      while (left > 0 && underWay < 4) {
        left--;
        underWay++;
        socket.write(message, () => {
          underWay--;
          next();
        });
      }
    };
    next();
    socket.once('data', () => {
      report({ seconds: (performance.now() - started) / 1000 });
    });
  });
  server.listen(0, '127.0.0.1', () => {
    report({ port: (server.address() as AddressInfo).port });
  });
  return Promise.resolve();
}

function rawClient(port: number, total: number): Promise<void> {
  let left = Math.ceil(total / PIECE_BYTES) * PIECE_BYTES;
  const socket = connect({
    port,
    host: '127.0.0.1',
    noDelay: true,
    onread: {
      buffer: Buffer.alloc(256 * 1024),
      callback: (count) => {
        left -= count;
        if (left === 0) socket.write('.');
        return true;
      },
    },
  });
  return Promise.resolve();
}

async function primary(total: number): Promise<void> {
  const listener = new PrimaryListener({
    host: '127.0.0.1',
    port: 0,
    heartbeatIntervalMs: 100,
    heartbeatTimeoutMs: 10_000,
  });
  const { port } = await listener.listen();
  const pieces = Array.from({ length: PIECES }, (_, piece) => {
    const memory = new Uint8Array(new SharedArrayBuffer(HEADROOM + PIECE_BYTES));
    randomFillSync(memory);
    writeRecordHeader(memory, HEADROOM, RecordType.PAGE_DATA, PIECE_BODY);
    writePageDataHeader(memory, HEADROOM + RECORD_HEADER_BYTES, MAX_BATCH_SIZE);
    const list = HEADROOM + RECORD_HEADER_BYTES + PAGE_DATA_HEADER_BYTES;
    for (let i = 0; i < MAX_BATCH_SIZE; i++)
      writePfnEntry(memory, list + i * 8, piece * MAX_BATCH_SIZE + i, 0);
    return { memory, start: HEADROOM, end: memory.length };
  });
  listener.offer({
    domain: 'bench',
    welcome: () => ({ streamUuid: 'bench', continuous: false, windowEpochs: 1 }),
    linked: (link) => void send(link),
    fenced: () => undefined,
  });
  report({ port });

  const small = (bytes: Uint8Array) => {
    const memory = new Uint8Array(HEADROOM + bytes.length);
    memory.set(bytes, HEADROOM);
    return { memory, start: HEADROOM, end: memory.length };
  };
  async function send(link: PrimaryLink): Promise<void> {
    const started = performance.now();
    await link.sink.write(small(encodeHeaders({ domainType: 2, xenMajor: 4, xenMinor: 17 })));
    for (let epoch = 0; epoch < total / CHECKPOINT_BYTES; epoch++) {
      const acknowledged = firstValueFrom(
        link.events$.pipe(filter((event) => event.kind === 'acknowledged' && event.epoch === epoch)),
      );
      for (const piece of pieces) await link.sink.write(piece);
      await link.sink.write(small(encodeRecord(RecordType.CHECKPOINT)));
      await link.sink.boundary(epoch, false);
      await link.sink.drain();
      await acknowledged;
    }
    report({ seconds: (performance.now() - started) / 1000 });
  }
}

async function secondary(port: number): Promise<void> {
  const memory = new Uint8Array(MEMORY_BYTES).fill(1);
  const link = await dial({
    url: `ws://127.0.0.1:${port}`,
    hello: {
      domain: 'bench',
      hypervisor: 'memory',
      domainType: 2,
      p2mSize: MEMORY_BYTES / PAGE_SIZE,
      role: 'standby',
      streamUuid: null,
      epoch: null,
    },
  });
  const batch = new PageBatch();
  for (;;) {
    const record = await link.source.read();
    if (record === null) return;
    if (record.type === RecordType.PAGE_DATA) {
      decodePageData(record, batch);
      const pages = record.body.subarray(batch.dataOffset);
      memory.set(pages, (batch.pfns[0] ?? 0) * PAGE_SIZE);
    } else {
      const { epoch } = await link.boundary();
      await link.acknowledge(epoch);
      report({ epoch });
    }
  }
}

process.once('disconnect', () => process.exit(0));
const [role, ...numbers] = process.argv.slice(2);
const [first = 0, second = 0] = numbers.map(Number);
if (role === 'raw-server') await rawServer(first);
else if (role === 'raw-client') await rawClient(first, second);
else if (role === 'primary') await primary(first);
else await secondary(first);
