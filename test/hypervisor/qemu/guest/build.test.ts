// How the test guest is made: its initramfs, its modules, its kernel; whole or not at all. The programs of Debian are
// played by shell scripts here; the real ones work for the tests that boot the guest.

import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import fc from 'fast-check';
import { HypervisorError } from '../../../../src/hypervisor/port.js';
import {
  type GuestFiles,
  guestProgramFile,
  prepareGuest,
} from '../../../../src/hypervisor/qemu/guest/build.js';
import { guestCommandLine } from '../../../../src/hypervisor/qemu/guest/command-line.js';
import { Initramfs } from '../../../../src/hypervisor/qemu/guest/initramfs.js';
import { GUEST_MODULES, modulesInOrder } from '../../../../src/hypervisor/qemu/guest/modules.js';
import { expectCode } from '../../support.js';

const run = promisify(execFile);
const never = new AbortController().signal;

/** Names and contents of an archive's entries; fails where the next entry does not stand where it must. */
function entries(archive: Buffer): [name: string, mode: number, data: string][] {
  const found: [string, number, string][] = [];
  for (let at = 0; ;) {
    expect(archive.toString('latin1', at, at + 6), `magic at ${at}`).to.equal('070701');
    const field = (k: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + k * 8, at + 14 + k * 8), 16);
    const size = field(6);
    const nameEnd = at + 110 + field(11);
    const name = archive.toString('utf8', at + 110, nameEnd - 1);
    if (name === 'TRAILER!!!') return found;
    const dataAt = Math.ceil(nameEnd / 4) * 4;
    found.push([name, field(1), archive.toString('latin1', dataAt, dataAt + size)]);
    at = Math.ceil((dataAt + size) / 4) * 4;
  }
}

describe('qemu: making the test guest', () => {
  let scratch = '';
  const path = process.env['PATH'] ?? '';
  beforeEach(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'romulus-make-'));
  });
  afterEach(async () => {
    process.env['PATH'] = path;
    await rm(scratch, { recursive: true });
  });

  describe('initramfs', () => {
    it('holds the files that were put in, after the folders that they are in', () => {
      const archive = new Initramfs()
        .file('init', Buffer.from('program'))
        .file('a/b/c', Buffer.from('x'))
        .bytes();
      expect(entries(archive)).to.deep.equal([
        ['init', 0o100755, 'program'],
        ['a', 0o040755, ''],
        ['a/b', 0o040755, ''],
        ['a/b/c', 0o100755, 'x'],
      ]);
    });

    it('holds any contents under any name', () => {
      const file = fc.tuple(fc.stringMatching(/^[a-zé]{1,9}$/), fc.uint8Array({ maxLength: 40 }));
      fc.assert(
        fc.property(fc.uniqueArray(file, { selector: ([name]) => name, maxLength: 5 }), (files) => {
          const made = new Initramfs();
          for (const [name, data] of files) made.file(name, data);
          expect(entries(made.bytes())).to.deep.equal(
            files.map(([name, data]) => [name, 0o100755, Buffer.from(data).toString('latin1')]),
          );
        }),
      );
    });
  });

  describe('modules', () => {
    const bytes = (name: string, depends: string) =>
      Buffer.from(`\x7fELF…\0license=GPL\0depends=${depends}\0name=${name}\0`);

    async function kernel(modules: Record<string, string>): Promise<void> {
      await mkdir(join(scratch, 'kernel'));
      await writeFile(join(scratch, 'modules.builtin'), 'kernel/a/always-there.ko\n');
      for (const [file, depends] of Object.entries(modules)) {
        await mkdir(join(scratch, 'kernel', dirname(file)), { recursive: true });
        await writeFile(join(scratch, 'kernel', `${file}.ko`), bytes(file, depends));
      }
    }
    const order = async (...wanted: string[]) =>
      (await modulesInOrder(scratch, wanted, never)).map(
        (module) => /name=(.*)\0/.exec(module.toString())?.[1],
      );

    it('come after what they need, each once, without what is built in', async () => {
      await kernel({
        'net/card': 'ring,fail-over,always_there',
        'bus/ring': 'base',
        'bus/base': '',
        'net/fail-over': '',
        'bus/pci': 'base,ring',
        'other/one': '',
      });
      expect(await order('pci', 'card')).to.deep.equal([
        'bus/base',
        'bus/ring',
        'bus/pci',
        'net/fail-over',
        'net/card',
      ]);
    });

    it('may need each other, which no kernel’s do, without end', async () => {
      await kernel({ a: 'b', b: 'a' });
      expect(await order('a')).to.deep.equal(['b', 'a']);
    });

    it('are an error where the kernel lacks one', async () => {
      await kernel({ a: 'b' });
      const error = await expectCode(modulesInOrder(scratch, ['a'], never), 'FAILED');
      expect(error.facts).to.include({ module: 'b', neededBy: 'a' });
    });

    it('may be compressed by xz', async function () {
      await kernel({ a: 'b', b: '' });
      try {
        await run('xz', [join(scratch, 'kernel/a.ko'), join(scratch, 'kernel/b.ko')]);
      } catch (error) {
        console.warn(`      NOT CHECKED: no xz here (${String(error)})`);
        this.skip();
      }
      expect(await order('a')).to.deep.equal(['b', 'a']);
    });

    it('in another compression, or in a broken one, are an error', async () => {
      await kernel({});
      await writeFile(join(scratch, 'kernel/a.ko.zst'), '');
      await writeFile(join(scratch, 'kernel/b.ko.xz'), 'not xz');
      await expectCode(modulesInOrder(scratch, ['a'], never), 'UNSUPPORTED');
      await expectCode(modulesInOrder(scratch, ['b'], never), 'FAILED');
    });
  });

  describe('files', () => {
    let cache = '';
    let bin = '';
    beforeEach(async () => {
      cache = join(scratch, 'cache');
      bin = join(scratch, 'bin');
      await mkdir(bin);
      await program(
        'apt-cache',
        'echo "linux-image-cloud-amd64"; echo "  Depends: linux-image-1-cloud-amd64"',
      );
      await program('apt-get', 'case "$*" in *download*) echo archive > linux-image.deb;; esac');
      await program(
        'dpkg-deb',
        `mkdir -p "$3/boot" "$3/lib/modules/1/kernel"
         echo kernel > "$3/boot/vmlinuz-1"
         : > "$3/lib/modules/1/modules.builtin"
         for m in ${GUEST_MODULES.join(' ')}; do echo $m > "$3/lib/modules/1/kernel/$m.ko"; done`,
      );
      process.env['PATH'] = `${bin}:${path}`;
    });
    const program = async (name: string, script: string) => {
      await writeFile(join(bin, name), `#!/bin/sh\n${script}\n`);
      await chmod(join(bin, name), 0o755);
    };
    const prepare = (signal = never): Promise<GuestFiles> => prepareGuest({ signal, cache });

    it('are made from kernel, program and modules', async () => {
      const { kernel, initramfs } = await prepare();
      expect(await readFile(kernel, 'utf8')).to.equal('kernel\n');
      const [init, folder, ...modules] = entries(await readFile(initramfs));
      expect(init).to.deep.equal(['init', 0o100755, (await readFile(guestProgramFile)).toString('latin1')]);
      expect(folder?.[0]).to.equal('modules');
      expect(modules.map(([name, , data]) => `${name} ${data}`)).to.deep.equal(
        GUEST_MODULES.map((name, k) => `modules/${k} ${name}\n`),
      );
      expect(await readdir(cache)).to.have.lengthOf(1);
    });

    it('are made once', async () => {
      const made = await prepare();
      process.env['PATH'] = scratch;
      expect(await prepare()).to.deep.equal(made);
    });

    it('are the same for many who make them at once', async () => {
      const made = await Promise.all([prepare(), prepare(), prepare()]);
      expect(made[1]).to.deep.equal(made[0]);
      expect(made[2]).to.deep.equal(made[0]);
      expect(await readdir(cache)).to.have.lengthOf(1);
      await readFile(made[0].initramfs);
    });

    it('take the kernel from below usr, where newer packages have it', async () => {
      await program(
        'dpkg-deb-old',
        (await readFile(join(bin, 'dpkg-deb'), 'utf8')).split('\n').slice(1).join('\n'),
      );
      await program('dpkg-deb', 'dpkg-deb-old "$@" && mkdir "$3/usr" && mv "$3/lib" "$3/usr/lib"');
      await prepare();
    });

    it('come with package lists of their own where the machine’s have no such kernel', async () => {
      await program(
        'apt-get',
        `case "$*" in
           *Dir::State::Lists=*update*) : > "${scratch}/updated";;
           *Dir::State::Lists=*download*) test -e "${scratch}/updated" && echo archive > linux-image.deb;;
           *) echo "E: it is gone" >&2; exit 100;;
         esac`,
      );
      await prepare();
      expect(await readdir(cache)).to.have.lengthOf(1);
    });

    it('say what to install where there is no apt', async () => {
      process.env['PATH'] = scratch;
      const error = await expectCode(prepare(), 'UNSUPPORTED');
      expect(error.message).to.include('install apt');
      expect(error.facts).to.include({ command: 'apt-get', debianPackage: 'apt' });
      expect(await readdir(cache)).to.deep.equal([]);
    });

    it('say why they cannot be had, and leave nothing', async () => {
      await program('apt-get', 'echo "E: no network" >&2; exit 100');
      const error = await expectCode(prepare(), 'FAILED');
      expect(error.facts['stderr']).to.equal('E: no network');
      expect(await readdir(cache)).to.deep.equal([]);
    });

    it('are refused from where apt has no Debian kernels', async () => {
      await program('apt-cache', 'echo "E: No packages found" >&2; exit 100');
      const error = await expectCode(prepare(), 'UNSUPPORTED');
      expect(error.message).to.include('apt knows no linux-image-cloud-amd64');
    });

    it('are not made from a package of another layout', async () => {
      await program('dpkg-deb', 'mkdir -p "$3/boot"');
      await expectCode(prepare(), 'FAILED');
      expect(await readdir(cache)).to.deep.equal([]);
    });

    it('can be given up, and leave nothing', async () => {
      await program(
        'apt-get',
        `trap "sleep 0.1; echo late > late; exit" TERM
         echo $$ > "${scratch}/pid"
         while :; do sleep 0.02; done`,
      );
      const abort = new AbortController();
      const reason = new Error('no longer wanted');
      const outcome = prepare(abort.signal).catch((error: unknown) => error);
      let pid = '';
      while (pid === '') pid = (await readFile(join(scratch, 'pid'), 'utf8').catch(() => '')).trim();
      abort.abort(reason);
      expect(await outcome).to.equal(reason);
      expect(await readdir(cache)).to.deep.equal([]);
      expect(() => process.kill(Number(pid), 0)).to.throw('ESRCH');
    });

    it('do away with what killed makers left, not with what living ones make', async () => {
      const dead = 'making-999999999-abc';
      const living = `making-${process.ppid}-abc`;
      for (const name of [dead, living]) await mkdir(join(cache, name), { recursive: true });
      await prepare();
      expect(await readdir(cache))
        .to.include(living)
        .and.not.include(dead);
    });
  });

  describe('command line', () => {
    it('tells the guest what it shall do', () => {
      expect(
        guestCommandLine({ workingSetPages: 2048, dirtyPages: 0, tickMs: 10, address: '10.0.0.2/24' }),
      ).to.match(
        /^console=ttyS0 .* -- romulus\.pages=2048 romulus\.dirty=0 romulus\.tick_ms=10 romulus\.ip=10\.0\.0\.2\/24$/,
      );
      expect(guestCommandLine({ workingSetPages: 10 }))
        .to.include('romulus.dirty=10 ')
        .and.not.include('romulus.ip');
    });

    it('tells the kernel, not the guest, how fast the time-stamp counter is', () => {
      expect(guestCommandLine({ tscKhz: 2_596_000 })).to.match(/ tsc_early_khz=2596000 -- romulus/);
    });

    for (const [key, options] of [
      ['tscKhz', { tscKhz: 0 }],
      ['workingSetPages', { workingSetPages: 0 }],
      ['workingSetPages', { workingSetPages: 262_145 }],
      ['workingSetPages', { workingSetPages: 1.5 }],
      ['dirtyPages', { workingSetPages: 10, dirtyPages: 11 }],
      ['tickMs', { tickMs: 0 }],
      ['address', { address: '10.0.0.2' }],
      ['address', { address: '10.0.0.2/33' }],
      ['address', { address: '10.0.0.256/24' }],
      ['address', { address: '10.0.0.2/24 quiet' }],
      ['address', { address: '0.0.0.0/0' }],
    ] as const) {
      it(`refuses ${JSON.stringify(options)}`, () => {
        expect(() => guestCommandLine(options))
          .to.throw(HypervisorError)
          .that.satisfies(
            (error: HypervisorError) => error.code === 'BAD_CONFIGURATION' && error.facts['key'] === key,
          );
      });
    }
  });
});
