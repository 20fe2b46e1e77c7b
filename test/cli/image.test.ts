// romulus save and restore: a machine goes on from an image at its very next tick.

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ticks } from '../../src/cli/demo/measure.js';
import { romulus } from './support.js';

describe('romulus save and restore', function () {
  this.timeout(60_000);
  let directory: string;
  let image: string;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'romulus-image-'));
    image = join(directory, 'machine.img');
  });

  after(() => rm(directory, { recursive: true }));

  it('a machine goes on where it was saved', async () => {
    const saved = await romulus(['save', image, '--memory', '4MiB', '--dirty', '50', '--ticks', '5']);
    expect(saved.exitCode, saved.stderr).to.equal(0);
    const restored = await romulus(['restore', image, '--ticks', '5']);
    expect(restored.exitCode, restored.stderr).to.equal(0);
    const said = ticks(saved.stdout + restored.stdout);
    expect(said.length).to.be.at.least(10);
    expect(said.map(({ number }) => number)).to.deep.equal(said.map((_, index) => index + 1));
    expect(said.filter(({ badPages }) => badPages > 0)).to.deep.equal([]);
    expect(await readdir(directory)).to.deep.equal(['machine.img']);
  });

  it('one that is interrupted was not done: 130, whether it had an end of its own or not', async () => {
    const other = join(directory, 'other.img');
    for (const [signal, ...args] of [
      ['SIGINT', 'restore', image],
      ['SIGTERM', 'restore', image],
      ['SIGINT', 'restore', image, '--ticks', '1000000'],
      ['SIGINT', 'save', other, '--memory', '4MiB', '--ticks', '1000000'],
    ] as const) {
      let sent = false;
      const { exitCode, stdout } = await romulus(args, (printed, pid) => {
        if (sent || !/^tick \d+ ok$/m.test(printed)) return;
        sent = true;
        process.kill(pid, signal);
      });
      expect(exitCode, args.join(' ')).to.equal(130);
      expect(ticks(stdout)).to.not.deep.equal([]);
    }
    expect(await readdir(directory)).to.deep.equal(['machine.img']);
  });

  it('a cut image, and one of something else, are refused with a reason', async () => {
    const whole = await readFile(image);
    const cut = join(directory, 'cut.img');
    for (const [content, reason] of [
      [whole.subarray(0, whole.length - 8), /NO_|ends/],
      [whole.subarray(0, whole.length / 2), /ends before its HVM context/],
      [Buffer.from('not an image, whatever its name says'), /BAD_MARKER/],
      [Buffer.alloc(0), /TRUNCATED/],
    ] as const) {
      await writeFile(cut, content);
      const { exitCode, stdout, stderr } = await romulus(['restore', cut, '--ticks', '1']);
      expect(stderr).to.match(reason);
      expect(stdout).to.equal('');
      expect(exitCode).to.equal(2);
    }
    await rm(cut);
  });

  it('an image that cannot be written leaves nothing behind', async () => {
    const { exitCode, stderr } = await romulus([
      'save',
      join(directory, 'no', 'such', 'folder'),
      '--memory',
      '4MiB',
      '--ticks',
      '1',
    ]);
    expect(stderr).to.match(/ENOENT/);
    expect(exitCode).to.equal(2);
    expect(await readdir(directory)).to.deep.equal(['machine.img']);
  });
});
