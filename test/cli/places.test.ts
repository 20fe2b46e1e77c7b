// Where stream files are read from and written to: links, FIFOs, devices, sockets, "-". What is no regular file stays
// what it is; a regular file is replaced when the image is whole, and not before.

import { expect } from 'chai';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants, createReadStream } from 'node:fs';
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  open,
  readFile,
  readdir,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { convertVerb } from '../../src/cli/convert.js';
import { InputFile } from '../../src/cli/files/input.js';
import { recoverVerb } from '../../src/cli/recover.js';
import { verifyVerb } from '../../src/cli/verify.js';
import { RomulusError } from '../../src/errors.js';
import { openImageSink } from '../../src/save/open-sink.js';
import { findPlace } from '../../src/save/place.js';
import { HEADROOM } from '../../src/stream/flow.js';
import { readFixture } from '../fixtures/xen.js';
import { checkpointed } from '../stream/examine/support.js';
import { expectSameBytes } from '../stream/streams.js';
import { Captured, entry, folderForTests, romulus, run } from './stream-files.js';

const root = process.getuid?.() === 0;

async function refused(job: Promise<unknown>): Promise<RomulusError> {
  try {
    await job;
  } catch (error) {
    if (error instanceof RomulusError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

describe('places of stream files', function () {
  this.timeout(60_000);
  const folder = folderForTests();
  let input = '';
  let image: Uint8Array = new Uint8Array(0);

  before(async () => {
    input = await folder.write('in', checkpointed('hvm', 'xl'));
    await recoverVerb(input, folder.path('image'), new Captured());
    image = await readFile(folder.path('image'));
  });

  function shell(script: string, ...args: string[]) {
    const romulusCommand = `romulus() { "${process.execPath}" "${entry}" "$@"; }\n`;
    return run('bash', ['-c', romulusCommand + script, 'bash', ...args]);
  }

  /** Runs a job with a special file of root's making; says so where that cannot be. */
  function made(context: Mocha.Context, command: string, ...args: string[]): string {
    try {
      if (!root) throw new Error('it takes root');
      return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
    } catch (error) {
      console.log(`    SKIPPED: ${command} ${args.join(' ')}: ${String(error)}`);
      return context.skip();
    }
  }

  describe('regular files', () => {
    it('a link stays, the file at its end is replaced and keeps its permissions, other hard links keep the old one', async () => {
      await mkdir(folder.path('deep'));
      const target = await folder.write('deep/target', 'old');
      await chmod(target, 0o640);
      if (root) await chown(target, 1, 2);
      await link(target, folder.path('deep/other'));
      await symlink('deep/target', folder.path('near'));
      await symlink(folder.path('near'), folder.path('far'));
      await recoverVerb(input, folder.path('far'), new Captured());
      expect((await lstat(folder.path('far'))).isSymbolicLink()).to.equal(true);
      expect((await lstat(folder.path('near'))).isSymbolicLink()).to.equal(true);
      expectSameBytes(await readFile(target), image);
      const { mode, uid, gid } = await stat(target);
      expect(mode & 0o777).to.equal(0o640);
      if (root) expect([uid, gid]).to.deep.equal([1, 2]);
      expect(await readFile(folder.path('deep/other'), 'utf8')).to.equal('old');
      expect(await readdir(folder.path('deep'))).to.have.members(['target', 'other']);
    });

    it('a dangling link gets its file, a link without an end is refused', async () => {
      await symlink('created', folder.path('dangling'));
      await convertVerb(input, folder.path('dangling'), { to: 'libxc' }, new Captured());
      expect((await lstat(folder.path('dangling'))).isSymbolicLink()).to.equal(true);
      expect((await lstat(folder.path('created'))).isFile()).to.equal(true);
      await symlink('circle', folder.path('circle'));
      expect((await refused(recoverVerb(input, folder.path('circle'), new Captured()))).code).to.equal(
        'BAD_PLACE',
      );
    });

    it('a folder is refused', async () => {
      const error = await refused(recoverVerb(input, folder.path('.'), new Captured()));
      expect(error.code).to.equal('BAD_PLACE');
      expect(error.message).to.contain('is a folder');
    });

    it('on a full disk the old file stays, and nothing else', async function () {
      const mounted = folder.path('full');
      await mkdir(mounted);
      made(this, 'mount', '-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', mounted);
      try {
        await writeFile(path.join(mounted, 'out'), 'old');
        const { exitCode, stderr } = await romulus('recover', input, path.join(mounted, 'out'));
        expect(exitCode).to.equal(1);
        expect(stderr).to.contain('ENOSPC');
        expect(await readdir(mounted)).to.deep.equal(['out']);
        expect(await readFile(path.join(mounted, 'out'), 'utf8')).to.equal('old');
      } finally {
        execFileSync('umount', [mounted]);
      }
    });
  });

  describe('standard input and output', () => {
    it('- at both ends: nothing but the image on standard output', async () => {
      const { stderr, exitCode } = await shell(
        'set -o pipefail; cat "$1" | romulus recover - - | romulus convert - - --to libxc | romulus verify - > "$2"; echo "${PIPESTATUS[*]}" >&2',
        input,
        folder.path('said'),
      );
      expect(exitCode).to.equal(0);
      expect(stderr).to.contain('standard output: checkpoint 3').and.to.contain('0 0 0 0');
      expect(await readFile(folder.path('said'), 'utf8')).to.contain('standard input: sound');
      await shell('cat "$1" | romulus recover - - > "$2"', input, folder.path('redirected'));
      expectSameBytes(await readFile(folder.path('redirected')), image);
    });

    for (const name of ['/dev/stdout', '/proc/self/fd/1', '/dev/fd/1']) {
      it(`${name} is the descriptor, whatever it is`, async () => {
        const out = folder.path('descriptor');
        const { stderr } = await shell(
          `{ echo first; romulus recover "$1" ${name}; echo last; } > "$2"`,
          input,
          out,
        );
        expect(stderr).to.contain(`${name}: checkpoint 3`);
        expectSameBytes(
          await readFile(out),
          Buffer.concat([Buffer.from('first\n'), image, Buffer.from('last\n')]),
        );
      });
    }

    it('an embedded machine goes from standard output to standard input', async () => {
      const { stdout, stderr } = await shell(
        'romulus save --memory 4MiB --ticks 3 - | romulus restore - --ticks 2',
      );
      const ticks = (text: string): number[] =>
        [...text.matchAll(/^tick (\d+) ok/gm)].map(([, n]) => Number(n));
      expect(ticks(stderr)[0]).to.equal(1);
      expect(ticks(stdout)[0]).to.equal((ticks(stderr).at(-1) ?? 0) + 1);
    });

    it('a reader that goes away has no whole image', async () => {
      const { stderr } = await shell(
        'romulus recover "$1" - | head -c 100 > /dev/null; echo "${PIPESTATUS[*]}" >&2',
        await folder.write('big', readFixture('pv-remus-6ckpt')),
      );
      expect(stderr).to.contain('are no whole image').and.to.contain('READER_GONE');
      expect(stderr).to.match(/\n1 0\n$/);
    });

    it('a terminal is refused', async function () {
      const { stdout } = await shell(
        'script -qec "$1 $2 recover $3 -" /dev/null < /dev/null; script -qec "$1 $2 verify -" /dev/null < /dev/null',
        process.execPath,
        entry,
        input,
      );
      if (stdout === '') this.skip();
      expect(stdout)
        .to.contain('standard output is a terminal')
        .and.to.contain('standard input is a terminal');
    });
  });

  describe('what is written through', () => {
    it('a FIFO stays one, at both ends', async () => {
      const fifo = folder.path('fifo');
      execFileSync('mkfifo', [fifo]);
      const output = new Captured();
      const verified = verifyVerb(fifo, {}, output);
      await recoverVerb(input, fifo, new Captured());
      expect(await verified).to.equal(0);
      expect(output.text).to.contain(`${fifo}: sound`);
      const recovered = recoverVerb(fifo, folder.path('from-fifo'), new Captured());
      await recoverVerb(input, fifo, new Captured());
      await recovered;
      expectSameBytes(await readFile(folder.path('from-fifo')), image);
      expect((await lstat(fifo)).isFIFO()).to.equal(true);
    });

    it('Ctrl-C ends the waiting for a FIFO, and for one whose reader stalls', async () => {
      const fifo = folder.path('stalled');
      execFileSync('mkfifo', [fifo]);
      const ended = new RomulusError('ENDED', 'by the test');
      const waiting = new AbortController();
      const opened = refused(openImageSink(await findPlace(fifo, 1), waiting.signal));
      waiting.abort(ended);
      expect(await opened).to.equal(ended);

      const reader = await open(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        const stalled = new AbortController();
        const sink = await openImageSink(await findPlace(fifo, 1), stalled.signal);
        const memory = new Uint8Array(HEADROOM + 4 * 1024 * 1024);
        const written = refused(sink.write({ memory, start: HEADROOM, end: memory.length }));
        stalled.abort(ended);
        expect(await written).to.equal(ended);
        await sink.discard();
      } finally {
        await reader.close();
      }

      // As a process, which no blocked thread may keep from its end.
      const big = await folder.write('big', readFixture('pv-remus-6ckpt'));
      const child = spawn(process.execPath, [entry, 'recover', big, fifo], { stdio: 'ignore' });
      const exited = once(child, 'close');
      const slow = createReadStream(fifo);
      await once(slow, 'readable');
      child.kill('SIGINT');
      await exited;
      slow.destroy();
      expect(child.exitCode).to.equal(130);
    });

    it('a socket', async () => {
      const chunks: Buffer[] = [];
      const server = createServer((socket) => {
        socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => server.close());
      });
      server.listen(folder.path('socket'));
      await once(server, 'listening');
      const closed = once(server, 'close');
      await recoverVerb(input, folder.path('socket'), new Captured());
      await closed;
      expectSameBytes(Buffer.concat(chunks), image);
    });

    it('a character device stays one; a full one is told', async function () {
      const device = folder.path('null');
      made(this, 'mknod', device, 'c', '1', '3');
      await recoverVerb(input, device, new Captured());
      await convertVerb(input, device, { to: 'libxc' }, new Captured());
      const saved = await romulus('save', '--memory', '4MiB', '--ticks', '1', device);
      expect(saved.exitCode, saved.stderr).to.equal(0);
      expect((await lstat(device)).isCharacterDevice()).to.equal(true);
      made(this, 'mknod', folder.path('dev-full'), 'c', '1', '7');
      const full = await romulus('recover', input, folder.path('dev-full'));
      expect(full).to.deep.include({ exitCode: 1, stdout: '' });
      expect(full.stderr).to.contain('ENOSPC');
    });
  });

  describe('block devices', () => {
    let device = '';

    beforeEach(async function () {
      const backing = await folder.write('disk', '');
      execFileSync('truncate', ['-s', '8M', backing]);
      device = made(this, 'losetup', '-f', '--show', backing);
    });

    afterEach(() => {
      if (device !== '') execFileSync('losetup', ['-d', device]);
      device = '';
    });

    it('hold an image, and whatever follows it', async () => {
      await writeFile(device, Buffer.alloc(2_000_000, 0x5a));
      await recoverVerb(input, device, new Captured());
      expect((await stat(device)).isBlockDevice()).to.equal(true);
      const output = new Captured();
      expect(await verifyVerb(device, { json: true }, output)).to.equal(0);
      expect(JSON.parse(output.text)).to.deep.include({ verdict: 'sound', bytes: image.length });
      await recoverVerb(device, folder.path('again'), new Captured());
      expectSameBytes(await readFile(folder.path('again')), image);
      const itself = await refused(recoverVerb(device, device, new Captured()));
      expect(itself.message).to.contain('is what is read');
    });

    it('that are too small are told so before anything is written', async () => {
      const small = await folder.write('small', new Uint8Array(4096).fill(7));
      const other = execFileSync('losetup', ['-f', '--show', small], { encoding: 'utf8' }).trim();
      try {
        const converted = await refused(convertVerb(input, other, { to: 'libxc' }, new Captured()));
        expect(converted.code).to.equal('PLACE_TOO_SMALL');
        const { code, facts } = await refused(recoverVerb(input, other, new Captured()));
        expect({ code, ...facts }).to.deep.equal({
          code: 'PLACE_TOO_SMALL',
          path: other,
          room: 4096,
          bytes: image.length,
        });
        expect(await readFile(small)).to.deep.equal(Buffer.alloc(4096, 7));
      } finally {
        execFileSync('losetup', ['-d', other]);
      }
    });

    it('that are in use are refused', async () => {
      // What a mount does: it holds the device for itself.
      const holder = await open(device, constants.O_RDONLY | constants.O_EXCL);
      try {
        const error = await refused(recoverVerb(input, device, new Captured()));
        expect(error.code).to.equal('PLACE_IN_USE');
      } finally {
        await holder.close();
      }
    });

    it('are read through a link', async () => {
      await recoverVerb(input, device, new Captured());
      await symlink(device, folder.path('by-name'));
      const file = await InputFile.open(folder.path('by-name'));
      expect(file.size).to.equal(8 * 1024 * 1024);
      await file.close();
    });
  });
});
