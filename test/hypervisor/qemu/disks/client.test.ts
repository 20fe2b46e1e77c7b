// The client against QEMU's server.

import { expect } from 'chai';
import { CHUNK_BYTES } from '../../../../src/disk/dirty-map.js';
import { ALLOCATION, readBitmap } from '../../../../src/hypervisor/qemu/disks/nbd/block-status.js';
import { NbdClient, type NbdClientOptions } from '../../../../src/hypervisor/qemu/disks/nbd/client.js';
import { Cleanup } from '../../../support/cleanup.js';
import {
  MIB,
  NBD,
  expectNbd,
  listening,
  needQemuTools,
  qemuImg,
  qemuIo,
  rawImage,
  served,
  started,
} from './support.js';
import { stamped } from './writers.js';

const BYTES = 20 * MIB + 512;

describe('qemu disks: the client, with qemu-nbd', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  const client = async (path: string, more: Partial<NbdClientOptions> = {}) => {
    const made = await NbdClient.connect({ path, exportName: 'disk', ...more });
    cleanup.add(() => made.close());
    return made;
  };
  const image = async (format: string): Promise<string> => {
    const file = `${await cleanup.directory()}/image`;
    if (format === 'raw') await rawImage(file, BYTES);
    else await qemuImg('create', '-q', '-f', format, file, String(BYTES));
    return file;
  };

  for (const format of ['raw', 'qcow2']) {
    it(`${format}: what is written is read, by us and by QEMU`, async () => {
      const file = await image(format);
      await qemuIo(file, format, 'write -P 5 4M 4M');
      const disk = await client(await served(cleanup, file, format, '--discard=unmap'));
      expect(disk.bytes).to.equal(BYTES);
      const model = Buffer.alloc(BYTES);
      model.fill(5, 4 * MIB, 8 * MIB);
      const write = async (offset: number, data: Buffer) => {
        model.set(data, offset);
        await disk.write(offset, data);
      };
      const writes = Array.from({ length: 40 }, (_, i) => write(i * 300_000 + 17, stamped(100_000 + i, i)));
      await Promise.all([
        ...writes,
        write(BYTES - 512, stamped(512, 9)),
        write(16 * MIB, stamped(3 * MIB, 1)),
      ]);
      await disk.writeZeroes(5 * MIB, MIB);
      model.fill(0, 5 * MIB, 6 * MIB);
      await disk.trim(7 * MIB, 64 * 1024);
      await disk.flush();
      const read = Buffer.alloc(BYTES, 0xaa);
      const pieces = Array.from({ length: 21 }, (_, i) => read.subarray(i * MIB, (i + 1) * MIB));
      await Promise.all(pieces.map((piece, i) => disk.read(i * MIB, piece)));
      model.set(read.subarray(7 * MIB, 7 * MIB + 64 * 1024), 7 * MIB); // undefined by now
      expect(read.compare(model)).to.equal(0);
      disk.close();
      const out = `${file}.out`;
      await qemuImg('convert', '-U', '-f', format, '-O', 'raw', file, out);
      const other = `${file}.model`;
      await rawImage(other, BYTES);
      const target = await client(await served(cleanup, other, 'raw'));
      await target.write(0, read);
      await target.flush();
      expect(await qemuImg('compare', '-U', '-f', 'raw', '-F', 'raw', out, other)).to.include('identical');
    });
  }

  it('knows what is allocated, and what a bitmap of QEMU’s has', async () => {
    const file = await image('qcow2');
    await qemuImg('bitmap', '--add', '-g', '64k', file, 'since');
    await qemuIo(file, 'qcow2', 'write -P 5 1M 200k', `write -P 6 ${20 * MIB} 512`);
    const context = 'qemu:dirty-bitmap:since';
    const path = await served(cleanup, file, 'qcow2', '--bitmap=since', '--read-only');
    const disk = await client(path, { contexts: [ALLOCATION, context] });
    const map = await readBitmap(disk, context);
    expect([...map.runs()]).to.deep.equal([
      { offset: MIB, length: 4 * CHUNK_BYTES },
      { offset: 20 * MIB, length: 512 },
    ]);
    const status = await disk.blockStatus(ALLOCATION, 0, 3 * MIB);
    expect([...status.subarray(0, 4)]).to.deep.equal([MIB, 3, 200 * 1024, 0]);
    await expectNbd(disk.blockStatus('qemu:dirty-bitmap:none', 0, MIB), 'REFUSED');
    await expectNbd(disk.write(0, Buffer.alloc(512)), 'REFUSED');
    await expectNbd(client(path, { contexts: ['qemu:dirty-bitmap:none'] }), 'REFUSED', 'does not have');
    await expectNbd(client(path, { exportName: 'none', contexts: [ALLOCATION] }), 'REFUSED');
  });

  it('asks for nothing that cannot be, nor for too much at once', async () => {
    const disk = await client(await served(cleanup, await image('raw'), 'raw'));
    await expectNbd(disk.read(BYTES - 1, new Uint8Array(2)), 'OUT_OF_RANGE');
    await expectNbd(disk.read(-1, new Uint8Array(2)), 'OUT_OF_RANGE');
    await expectNbd(disk.write(0, new Uint8Array(0)), 'OUT_OF_RANGE');
    await expectNbd(disk.read(0, new Uint8Array(33 * MIB)), 'OUT_OF_RANGE');
    const all = await Promise.allSettled(
      Array.from({ length: 100 }, () => disk.read(0, new Uint8Array(512))),
    );
    const refused = all.filter(({ status }) => status === 'rejected');
    expect(refused).to.have.lengthOf(100 - 64);
    await disk.read(0, new Uint8Array(512));
  });

  it('fails with a request that the disk fails', async () => {
    const path = `${await cleanup.directory()}/socket`;
    const [fails, image] = ['inject-error.0.event=none,inject-error.0.iotype=write', `image.size=${MIB}`];
    const options = `driver=blkdebug,${fails},image.driver=null-co,${image}`;
    await started(cleanup, 'qemu-nbd', [...NBD, '-k', path, '--image-opts', options]);
    await listening(path);
    const disk = await client(path);
    const error = await expectNbd(disk.write(4096, new Uint8Array(512)), 'REQUEST_FAILED');
    expect(error.facts).to.deep.equal({ errno: 5, command: 1, offset: 4096, length: 512 });
    await disk.read(0, new Uint8Array(512));
  });

  it('all that is under way fails when the server dies', async () => {
    const file = await image('raw');
    const path = `${await cleanup.directory()}/socket`;
    const server = await started(cleanup, 'qemu-nbd', [
      '-t',
      '-e',
      '4',
      '-f',
      'raw',
      '-k',
      path,
      '-x',
      'disk',
      file,
    ]);
    await listening(path);
    const disk = await client(path);
    server.kill('SIGSTOP');
    const reads = [0, 1, 2].map((i) => expectNbd(disk.read(i * 4096, new Uint8Array(4096)), 'CLOSED'));
    server.kill('SIGKILL');
    await Promise.all(reads);
    await expectNbd(disk.read(0, new Uint8Array(512)), 'CLOSED');
    await expectNbd(client(path), 'FAILED');
  });

  it('waits for a server no longer than it said, and not at all when it is told to stop', async () => {
    const file = await image('raw');
    const path = `${await cleanup.directory()}/socket`;
    const server = await started(cleanup, 'qemu-nbd', [...NBD, '-f', 'raw', '-k', path, file]);
    const stop = new AbortController();
    await listening(path);
    const [disk, other] = [
      await client(path, { timeoutMs: 100 }),
      await client(path, { signal: stop.signal }),
    ];
    server.kill('SIGSTOP');
    await expectNbd(disk.read(0, new Uint8Array(512)), 'HUNG');
    const read = expectNbd(other.read(0, new Uint8Array(512)), 'CLOSED', 'given up');
    stop.abort();
    await read;
    await expectNbd(client(path, { timeoutMs: 100 }), 'HUNG', 'handshake');
    await expectNbd(client(path, { signal: AbortSignal.abort() }), 'CLOSED');
  });
});
