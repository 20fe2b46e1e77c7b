// The exports as the agent holds them: epochs, memory that comes back, strangers at the socket, and every end.

import { once } from 'node:events';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs';
import { Server, connect, type Socket } from 'node:net';
import path from 'node:path';
import { expect } from 'chai';
import { SLAB_BYTES, dataAt } from '../../../../src/disk/extents.js';
import { NbdClient } from '../../../../src/hypervisor/qemu/disks/nbd/client.js';
import { NbdExports } from '../../../../src/hypervisor/qemu/disks/nbd/exports.js';
import { Command, Option, optionOctets } from '../../../../src/hypervisor/qemu/disks/nbd/protocol.js';
import { Cleanup } from '../../../support/cleanup.js';
import { until } from '../../../support/until.js';
import { CLIENT_FLAGS, nameOption, request } from './requests.js';
import { MIB, StandbyDisk, expectNbd, exported, needQemuTools, qemuIo, sealInto, uriOf } from './support.js';
import { stamped } from './writers.js';

describe('qemu disks: the exports', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  const client = async ({ path }: NbdExports, exportName = 'disk') => {
    const made = await NbdClient.connect({ path, exportName });
    cleanup.add(() => made.close());
    return made;
  };
  const stranger = async ({ path }: NbdExports): Promise<Socket> => {
    const socket = connect(path);
    cleanup.add(() => socket.destroy());
    socket.on('error', () => undefined);
    await once(socket, 'data');
    return socket;
  };

  /** In whatever way. */
  const closing = (socket: Socket) =>
    new Promise<void>((resolve) => {
      socket.on('error', () => undefined);
      socket.once('close', () => resolve());
    });

  it('take what qemu-io writes, to several disks at once', async () => {
    const disks = [
      { name: 'a', bytes: 8 * MIB },
      { name: 'b', bytes: 3 * MIB + 512 },
    ];
    const { exports, events } = await exported(cleanup, { disks });
    const standbys = { a: new StandbyDisk(8 * MIB), b: new StandbyDisk(3 * MIB + 512) };
    await Promise.all([
      qemuIo(uriOf(exports.path, 'a'), 'raw', 'write -P 1 0 6M', 'write -P 2 1000k 3k', 'write -z 64k 64k'),
      qemuIo(uriOf(exports.path, 'b'), 'raw', 'write -P 3 3M 512', 'aio_write -P 4 0 1M', 'discard 1M 1M'),
    ]);
    // What is written over what is kept takes no more room.
    const figures = [
      { name: 'a', requests: 3, writtenBytes: 6 * MIB + 3072, journalBytes: 6 * MIB },
      { name: 'b', requests: 3, writtenBytes: MIB + 512, journalBytes: MIB + 512 },
    ];
    await until(
      'they are counted',
      () => exports.figures.reduce((all, { requests }) => all + requests, 0) === 6,
    );
    expect(exports.figures).to.deep.equal(figures);
    const [a, b] = await sealInto(exports, standbys);
    expect([a?.name, b?.name]).to.deep.equal(['a', 'b']);
    expect(standbys.a.octets.subarray(0, 65_536).every((octet) => octet === 1)).to.equal(true);
    expect(standbys.a.octets.subarray(65_536, 131_072).every((octet) => octet === 0)).to.equal(true);
    expect(standbys.a.octets.readUInt8(1000 * 1024 + 3 * 1024 - 1)).to.equal(2);
    expect([standbys.a.octets.readUInt8(6 * MIB - 1), standbys.a.octets.readUInt8(6 * MIB)]).to.deep.equal([
      1, 0,
    ]);
    expect(standbys.b.octets.readUInt8(3 * MIB + 511)).to.equal(3);
    expect(b?.counters.covers, 'a discard').to.equal(1);
    await until('they are sealed', () => exports.figures.every(({ journalBytes }) => journalBytes === 0));
    const before = figures.map((each) => ({ ...each, journalBytes: 0 }));
    expect(exports.figures, 'and still counted').to.deep.equal(before);
    await until('they are gone', () => events.filter(({ kind }) => kind === 'lost').length === 2);
    expect(events).to.deep.include({ kind: 'lost', disk: 'a', reason: null });
  });

  it('end an epoch where seal() is called, whenever its data come', async () => {
    const disks = [{ name: 'disk', bytes: MIB }];
    const { exports } = await exported(cleanup, { disks, poolBytes: 300 * SLAB_BYTES });
    const writer = await client(exports);
    const sealed: ReturnType<NbdExports['seal']>[] = [];
    for (let epoch = 0; epoch < 300; epoch++) {
      expect(exports.epoch).to.equal(epoch);
      await writer.write(4096, Buffer.alloc(512, epoch & 0xff));
      sealed.push(exports.seal());
      // Not waited for: the next write is of the next epoch all the same.
    }
    for (const [epoch, promise] of sealed.entries()) {
      const [writes] = await promise;
      if (!writes) throw new Error('nothing was sealed');
      expect([writes.counters.writes, writes.extents.count]).to.deep.equal([1, 1]);
      expect(dataAt(writes.extents, writes.slabs, 0)[0]).to.equal(epoch & 0xff);
      exports.release(writes.slabs);
    }
  });

  it('have so much memory and no more, and say when little is left', async () => {
    const options = { disks: [{ name: 'disk', bytes: 2 ** 40 }], poolBytes: 8 * SLAB_BYTES };
    const { exports, events } = await exported(cleanup, options);
    const writer = await client(exports);
    const pressed = () => events.filter(({ kind }) => kind === 'pressure').length;
    const held = [];
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 6; i++) await writer.write((round * 6 + i) * SLAB_BYTES, stamped(SLAB_BYTES, i));
      await writer.writeZeroes(2 ** 30, 512);
      held.push(...(await exports.seal()));
    }
    expect(held.map(({ slabs }) => slabs.length)).to.deep.equal([6, 2]);
    expect(held.map(({ dirty }) => dirty?.octets() ?? 0)).to.deep.equal([0, 4 * SLAB_BYTES]);
    expect(pressed(), 'once in an epoch').to.equal(2);
    exports.release(held.flatMap(({ slabs }) => slabs));
    await writer.write(0, stamped(SLAB_BYTES, 1));
    expect((await exports.seal())[0]?.dirty).to.equal(null);
    expect(pressed()).to.equal(2);
  });

  it('a write that is held, and forgotten, waits half a second', async () => {
    const { exports } = await exported(cleanup, {
      disks: [{ name: 'disk', bytes: 2 ** 30 }],
      poolBytes: SLAB_BYTES,
    });
    await exports.setMode('disk', 'throttle');
    const writer = await client(exports);
    const started = performance.now();
    await writer.write(0, stamped(2 * SLAB_BYTES, 1));
    expect(performance.now() - started).to.be.within(400, 5000);
    expect((await exports.seal())[0]?.dirty?.octets()).to.equal(SLAB_BYTES);
  });

  it('one client has a disk at a time, and the next one when it is gone', async () => {
    const { exports, events } = await exported(cleanup, { disks: [{ name: 'disk', bytes: MIB }] });
    const first = await client(exports);
    await expectNbd(client(exports), 'REFUSED', 'another client');
    await expectNbd(client(exports, 'none'), 'REFUSED');
    first.close();
    await until('it is gone', () => events.length === 2);
    await (await client(exports)).write(0, stamped(512, 1));
  });

  it('strangers are heard for a while, and some at a time', async () => {
    const { exports, events } = await exported(cleanup, { disks: [{ name: 'disk', bytes: MIB }] });
    const silent = await Promise.all(Array.from({ length: 5 }, () => stranger(exports)));
    await closing(connect(exports.path));
    silent[0]?.destroy();
    const garbage = silent[1];
    if (!garbage) throw new Error('there is no stranger');
    const closed = closing(garbage);
    garbage.end(Buffer.alloc(100_000, 'x'));
    await closed;
    await until('there is room', () => events.length === 0);
    await (await client(exports)).write(0, stamped(512, 1));
    silent[2]?.write(CLIENT_FLAGS);
    silent[2]?.write(optionOctets(Option.ABORT, Buffer.alloc(0)));
    if (silent[2]) await closing(silent[2]);
  });

  it('who does not read replies is not listened to; who reads them gets them all', async () => {
    const { exports } = await exported(cleanup, { disks: [{ name: 'disk', bytes: MIB }] });
    const socket = await stranger(exports);
    socket.write(Buffer.concat([CLIENT_FLAGS, nameOption(Option.GO, 'disk')]));
    let octets = 0;
    socket.on('data', (chunk) => (octets += chunk.length));
    await until('it is chosen', () => octets === 3 * 20 + 12 + 14); // two of INFO, and ACK
    socket.pause();
    octets = 0;
    const count = 200_000;
    const all = Buffer.concat(
      Array<Buffer>(count).fill(request({ type: Command.WRITE_ZEROES, length: 512 })),
    );
    socket.write(all);
    // It has taken what sockets hold, and some replies' worth: not the megabytes that there are.
    let covers = 0;
    for (let same = 0; same < 5;) {
      const [writes] = await exports.seal();
      covers += writes?.counters.covers ?? 0;
      same = writes?.counters.covers === 0 ? same + 1 : 0;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(covers)
      .to.be.greaterThan(0)
      .and.below(count / 2);
    expect(socket.writableLength).to.be.greaterThan(0);
    socket.resume();
    await until('all replies', () => octets === count * 16);
  });

  it('are closed with all that they had', async () => {
    const { exports } = await exported(cleanup, { disks: [{ name: 'disk', bytes: MIB }] });
    const directory = path.dirname(exports.path);
    expect(statSync(directory).mode & 0o777).to.equal(0o700);
    const writer = await client(exports);
    const sealing = expectNbd(exports.seal(), 'CLOSED');
    await exports.close();
    await sealing;
    await exports.close();
    expect(existsSync(directory)).to.equal(false);
    await writer.ended;
    await expectNbd(exports.seal(), 'CLOSED');
    await expectNbd(exports.setMode('disk', 'map'), 'CLOSED');
    await expectNbd(exports.setMode('none', 'map'), 'FAILED');
    exports.letThrough();
    exports.release([new Uint8Array(SLAB_BYTES)]);
  });

  it('tell that their thread has ended, and are closed all the same', async () => {
    const entry = new URL('./faulty-worker.js', import.meta.url);
    const disks = ['disk', 'doomed'].map((name) => ({ name, bytes: MIB }));
    const { exports, events } = await exported(cleanup, { disks, entry });
    const [writer, doomed] = await Promise.all([client(exports), client(exports, 'doomed')]);
    await writer.write(0, stamped(512, 1));
    doomed.write(0, stamped(512, 1)).catch(() => undefined);
    await until('it has ended', () => events.at(-1)?.kind === 'ended');
    const last = events.at(-1);
    expect(last?.kind === 'ended' && last.error.facts['reason']).to.equal('it was doomed');
    await expectNbd(exports.seal(), 'THREAD_ENDED');
    const outcome = await exports.copy({
      disk: 'disk',
      path: '',
      exportName: '',
      take: () => Promise.resolve(),
    });
    expect(outcome.error).to.include({ code: 'THREAD_ENDED' });
    expect(outcome.left.octets()).to.equal(MIB);
    await writer.ended;
    await exports.close();
    expect(existsSync(exports.path)).to.equal(false);
  });

  it('do away with what killed processes left, not with what somebody listens at, or has made just now', async () => {
    const directory = await cleanup.directory();
    const { exports } = await exported(cleanup, { disks: [{ name: 'disk', bytes: MIB }], directory });
    const gone = new Server().listen(path.join(directory, 'gone'));
    await once(gone, 'listening');
    const dead = { left: 999_999_999, served: 999_999_998, living: process.ppid };
    const of = (pid: number) => path.join(directory, `romulus-nbd-${pid}-abcdef`);
    for (const pid of Object.values(dead)) mkdirSync(of(pid));
    // A socket whose owner was killed stays, and nobody answers there; to rename one changes nothing of that.
    const killed = spawnSync(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(path.join(of(dead.left), 'socket'))}, () => process.kill(process.pid, 'SIGKILL'))`,
    ]);
    expect([killed.signal, existsSync(path.join(of(dead.left), 'socket'))]).to.deep.equal(['SIGKILL', true]);
    renameSync(path.join(directory, 'gone'), path.join(of(dead.served), 'socket'));
    try {
      const more = await exported(cleanup, { disks: [{ name: 'disk', bytes: MIB }], directory });
      const wanted = [
        of(dead.served),
        of(dead.living),
        ...[exports, more.exports].map((each) => path.dirname(each.path)),
      ];
      const there = readdirSync(directory).map((name) => path.join(directory, name));
      expect(there).to.have.members(wanted);
    } finally {
      gone.close();
    }
  });

  it('say where no socket can stand', async () => {
    const directory = await cleanup.directory();
    const open = (parent: string) => NbdExports.open({ directory: parent, disks: [], poolBytes: MIB });
    await expectNbd(open(path.join(directory, 'x'.repeat(100))), 'BAD_PATH', 'too long');
    await expectNbd(open(path.join(directory, 'none')), 'FAILED', 'no directory');
    mkdirSync(path.join(directory, 'parent'));
    chmodSync(path.join(directory, 'parent'), 0o700);
    const exports = await open(path.join(directory, 'parent'));
    await exports.close();
    expect(readdirSync(path.join(directory, 'parent'))).to.deep.equal([]);
  });
});
