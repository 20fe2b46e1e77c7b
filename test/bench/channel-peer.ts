// The processes of the channel's benchmark. Each does one role and reports over IPC; the parent kills it.
//
//   raw-server, raw-client    plain TCP, the reference
//   primary, secondary        saver, link and restorer: checkpoints with a digest, each acknowledged

import { connect, createServer, type AddressInfo } from 'node:net';
import { randomFillSync } from 'node:crypto';
import xxhash from '@node-rs/xxhash';
import { filter, firstValueFrom, map, shareReplay, startWith } from 'rxjs';
import type { PrimaryLink } from '../../src/channel/contract.js';
import { dial } from '../../src/channel/dial/dialer.js';
import { PrimaryListener } from '../../src/channel/listen/listener.js';
import { MemoryDomain } from '../memory/domain.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { saveDomain } from '../../src/save/save.js';
import {
  DomainType,
  MAX_BATCH_SIZE,
  PAGE_DATA_HEADER_BYTES,
  PAGE_SIZE,
  RECORD_HEADER_BYTES,
} from '../../src/stream/format.js';
import { peakMemoryMiB } from './bench.js';

const CHECKPOINT_BYTES = 64 * 1024 * 1024;
const PAGES = CHECKPOINT_BYTES / PAGE_SIZE;
/** The next checkpoint is captured while this one is on its way. */
const WINDOW_EPOCHS = 2;
/** What goes first and is not counted: pages are faulted in and code is compiled once, not once a gigabyte. */
const WARM_UP_CHECKPOINTS = 4;
/** A PAGE_DATA record of a whole batch: what the saver sends as one message. */
const PIECE_BYTES = RECORD_HEADER_BYTES + PAGE_DATA_HEADER_BYTES + MAX_BATCH_SIZE * (8 + PAGE_SIZE);

function report(what: object): void {
  process.send?.({ ...what, rssMiB: peakMemoryMiB() });
}

function rawMessages(total: number): number {
  return Math.ceil((total + WARM_UP_CHECKPOINTS * CHECKPOINT_BYTES) / PIECE_BYTES);
}

/** `total` octets in messages of a piece's size, out of as much memory as the domain has, as fast as they are taken. */
async function rawServer(total: number): Promise<void> {
  const memory = randomFillSync(Buffer.alloc(CHECKPOINT_BYTES));
  let from = 0;
  const message = () => {
    if (from + PIECE_BYTES > memory.length) from = 0;
    from += PIECE_BYTES;
    return memory.subarray(from - PIECE_BYTES, from);
  };
  const server = createServer({ noDelay: true }, (socket) => {
    let started = 0;
    let left = rawMessages(total);
    let underWay = 0;
    const next = () => {
      while (left > 0 && underWay < 4) {
        if (left === Math.ceil(total / PIECE_BYTES)) started = performance.now();
        left--;
        underWay++;
        socket.write(message(), () => {
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
  let left = rawMessages(total) * PIECE_BYTES;
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

/** A domain of one checkpoint's size, all of which is dirty in every epoch: saved by the saver, into the link. */
async function primary(total: number): Promise<void> {
  const domain = new MemoryDomain({ pages: PAGES });
  randomFillSync(domain.memory);
  await domain.start();
  const everyPage = Uint32Array.from({ length: PAGES }, (_, pfn) => pfn);
  const listener = new PrimaryListener({
    host: '127.0.0.1',
    port: 0,
    heartbeatIntervalMs: 100,
    heartbeatTimeoutMs: 10_000,
  });
  const { port } = await listener.listen();
  const epochs = WARM_UP_CHECKPOINTS + total / CHECKPOINT_BYTES;
  const linked = (link: PrimaryLink) => {
    let started = 0;
    let seconds = 0;
    const acknowledged$ = link.events$.pipe(
      filter((event) => event.kind === 'acknowledged'),
      map((event) => event.epoch),
      startWith(-1),
      shareReplay(1),
    );
    // Listens from the start: an acknowledgement may come before it is waited for.
    acknowledged$.subscribe();
    const acknowledged = (epoch: number) =>
      firstValueFrom(acknowledged$.pipe(filter((last) => last >= epoch)));
    void saveDomain({
      domain,
      sink: link.sink,
      streamType: 'remus',
      live: false,
      slabCount: WINDOW_EPOCHS + 1,
      callbacks: {
        suspend: () => domain.suspend(),
        async postcopy(epoch) {
          await domain.resume();
          for (let pfn = 0; pfn < PAGES; pfn++) domain.memory[pfn * PAGE_SIZE] = epoch + pfn;
          domain.dirty(everyPage);
        },
        async checkpoint(epoch, sent) {
          const last = epoch + 1 === epochs || epoch + 1 === WARM_UP_CHECKPOINTS;
          await acknowledged(last ? epoch : epoch + 1 - WINDOW_EPOCHS);
          if (last) await sent;
          if (epoch + 1 === WARM_UP_CHECKPOINTS) started = performance.now();
          if (epoch + 1 < epochs) return 'continue';
          seconds = (performance.now() - started) / 1000;
          // What changed after the last checkpoint never left: undone, so that the two memories can be compared.
          for (let pfn = 0; pfn < PAGES; pfn++) domain.memory[pfn * PAGE_SIZE] = epoch - 1 + pfn;
          return 'finish';
        },
      },
    }).then(({ checkpoints }) => {
      report({ seconds, checkpoints, digest: xxhash.xxh3.xxh64(domain.memory).toString() });
    });
  };
  listener.offer({
    domain: 'bench',
    welcome: () => ({
      ...{ host: 'north', streamUuid: 'bench', pairing: 'bench', resumes: false },
      ...{ continuous: false, windowEpochs: WINDOW_EPOCHS },
    }),
    linked,
  });
  report({ port });
}

/** The restorer, out of the link, into a domain's memory. */
async function secondary(port: number): Promise<void> {
  const domain = new MemoryDomain({ pages: PAGES, empty: true });
  const link = await dial({
    url: `ws://127.0.0.1:${port}`,
    hello: {
      domain: 'bench',
      host: 'south',
      hypervisor: 'memory',
      domainType: DomainType.X86_HVM,
      p2mSize: PAGES,
      inventory: {},
      streamUuid: null,
      epoch: null,
      pairing: null,
      shared: null,
      images: null,
      blankDisks: [],
    },
  });
  await restoreDomain({
    domain,
    source: link.source,
    streamType: 'remus',
    callbacks: {
      async checkpoint(epoch) {
        await link.boundary();
        await link.acknowledge(epoch);
        return 'success';
      },
    },
  });
  report({ digest: xxhash.xxh3.xxh64(domain.memory).toString() });
}

process.once('disconnect', () => process.exit(0));
const [role, ...numbers] = process.argv.slice(2);
const [first = 0, second = 0] = numbers.map(Number);
if (role === 'raw-server') await rawServer(first);
else if (role === 'raw-client') await rawClient(first, second);
else if (role === 'primary') await primary(first);
else await secondary(first);
