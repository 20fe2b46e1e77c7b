// The committed guest program is what its source builds to, by the command that the source names.

import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { guestProgramFile } from '../../../../src/hypervisor/qemu/guest/build.js';

const run = promisify(execFile);

/** Entry point, and what is loaded where: all that the kernel sees of an ELF file. */
function loaded(elf: Buffer): { entry: bigint; segments: { at: bigint; size: bigint; bytes: string }[] } {
  const table = Number(elf.readBigUInt64LE(32));
  const segments = [];
  for (let k = 0; k < elf.readUInt16LE(56); k++) {
    const header = table + k * 56;
    if (elf.readUInt32LE(header) !== 1) continue; // PT_LOAD
    const offset = Number(elf.readBigUInt64LE(header + 8));
    const length = Number(elf.readBigUInt64LE(header + 32));
    segments.push({
      at: elf.readBigUInt64LE(header + 16),
      size: elf.readBigUInt64LE(header + 40),
      bytes: elf.subarray(offset, offset + length).toString('hex'),
    });
  }
  return { entry: elf.readBigUInt64LE(24), segments };
}

describe('qemu: the test guest’s program', () => {
  it('is built from its source', async function () {
    const source = dirname(guestProgramFile);
    const text = await readFile(join(source, 'init.c'), 'utf8');
    const command = /^\/\/ +(gcc .*)$/m.exec(text)?.[1];
    const version = /^\/\/ Build \(gcc ([\d.]+),/m.exec(text)?.[1];
    if (command === undefined || version === undefined) throw new Error('the source names no command');
    let here: string;
    try {
      here = (await run('gcc', ['-dumpfullversion'])).stdout.trim();
      // A compiler may be there without the C library's headers, or the kernel's.
      await run('gcc', ['-E', '-include', 'netinet/tcp.h', '-include', 'linux/reboot.h', '-xc', '/dev/null']);
    } catch (error) {
      here = error instanceof Error ? error.message.trim() : String(error);
    }
    if (here !== version) {
      console.warn(`      NOT CHECKED: it was built by gcc ${version}, and here is: ${here}`);
      this.skip();
    }
    const folder = await mkdtemp(join(tmpdir(), 'romulus-guest-'));
    try {
      for (const file of await readdir(source)) {
        if (/\.[ch]$/.test(file)) await copyFile(join(source, file), join(folder, file));
      }
      await run('sh', ['-c', command], { cwd: folder });
      const built = loaded(await readFile(join(folder, 'init.elf')));
      expect(built.segments).to.have.length(2);
      expect(built).to.deep.equal(loaded(await readFile(guestProgramFile)));
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
