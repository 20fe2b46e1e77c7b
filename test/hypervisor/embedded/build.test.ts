// The committed guest is what its source builds to, by the command that the source names.

import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { builtinGuestFile } from '../../../src/hypervisor/embedded/config.js';

const run = promisify(execFile);

/** Entry point, and what is loaded where: all that the machine sees of an ELF file. */
function loaded(elf: Buffer): { entry: number; segments: { at: number; size: number; bytes: string }[] } {
  const table = elf.readUInt32LE(28);
  const segments = [];
  for (let k = 0; k < elf.readUInt16LE(44); k++) {
    const header = table + k * 32;
    if (elf.readUInt32LE(header) !== 1) continue; // PT_LOAD
    const offset = elf.readUInt32LE(header + 4);
    segments.push({
      at: elf.readUInt32LE(header + 12),
      size: elf.readUInt32LE(header + 20),
      bytes: elf.subarray(offset, offset + elf.readUInt32LE(header + 16)).toString('hex'),
    });
  }
  return { entry: elf.readUInt32LE(24), segments };
}

describe('embedded: the guest’s file', () => {
  it('is built from its source', async function () {
    const folder = await mkdtemp(join(tmpdir(), 'romulus-guest-'));
    try {
      try {
        await run('as', ['--32', '-o', join(folder, 'probe.o'), '/dev/null']);
        await run('ld', ['--version']);
      } catch (error) {
        console.warn(
          `      NOT CHECKED: no assembler and linker for 32-bit x86 here (${error instanceof Error ? error.message.trim() : String(error)})`,
        );
        this.skip();
      }
      const source = join(dirname(builtinGuestFile), 'tick.s');
      await copyFile(source, join(folder, 'tick.s'));
      const command = /^# +(as --32 .*)$/m.exec(await readFile(source, 'utf8'))?.[1];
      if (command === undefined) throw new Error('the source names no command');
      await run('sh', ['-c', command], { cwd: folder });
      const built = loaded(await readFile(join(folder, 'tick.elf')));
      expect(built.segments).to.have.length(2);
      expect(built).to.deep.equal(loaded(await readFile(builtinGuestFile)));
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
