// A file that is opened anew while octets are on their way to it.

import { readFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { FileOutlet } from '../../src/output/file-outlet.js';
import { Cleanup } from '../support/cleanup.js';
import { Fifo } from '../support/strangers.js';
import { until } from '../support/until.js';

/** More than the pipe takes at once, in lines. */
const before = Array.from({ length: 4000 }, (_, n) => `before ${n} ${'x'.repeat(50)}\n`).join('');
const after = 'after\n';

describe('output/file-outlet: an eager one, opened anew', function () {
  this.timeout(20_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  /** A FIFO that nobody reads, with octets on their way to it. */
  async function stalled() {
    const fifo = (await Fifo.open(cleanup)).fill();
    const lost: string[] = [];
    const outlet = new FileOutlet(
      { path: fifo.path },
      { eager: true, lost: (bytes) => lost.push(Buffer.from(bytes).toString()) },
    );
    cleanup.add(() => outlet.close());
    await outlet.open();
    expect(outlet.write(Buffer.from(before))).to.equal(before.length);
    return { fifo, lost, outlet };
  }

  it('its reader goes on: what was written stays there, what follows is in the new file', async () => {
    const { fifo, lost, outlet } = await stalled();
    renameSync(fifo.path, path.join(path.dirname(fifo.path), 'rotated'));
    const reopened = outlet.reopen();
    let text = '';
    await until('all is read', () => (text += fifo.drain()).length >= before.length);
    await reopened;
    expect(outlet.write(Buffer.from(after))).to.equal(after.length);
    await outlet.settled();
    expect(text === before, 'lost, or torn').to.equal(true);
    expect(lost).to.deep.equal([]);
    expect(readFileSync(fifo.path, 'utf8')).to.equal(after);
  });

  it('by the same name: nothing overtakes', async () => {
    const { fifo, lost, outlet } = await stalled();
    const reopened = outlet.reopen();
    let text = '';
    let written = 0;
    await until('all is read', () => {
      // Whoever writes tries again and again, as a pump does.
      if (written === 0) written = outlet.write(Buffer.from(after)) as number;
      text += fifo.drain();
      return text.length >= before.length + after.length;
    });
    await reopened;
    expect(text === before + after, 'out of order').to.equal(true);
    expect(lost).to.deep.equal([]);
  });

  it('its reader does not go on: given up, counted, and the new file is written', async () => {
    const { fifo, lost, outlet } = await stalled();
    renameSync(fifo.path, path.join(path.dirname(fifo.path), 'rotated'));
    await outlet.reopen();
    expect(outlet.write(Buffer.from(after))).to.equal(after.length);
    await until('it is there', () => readFileSync(fifo.path, 'utf8') === after);
    await until('it is counted', () => lost.join('').length > 0);
    expect(fifo.drain() + lost.join('') === before).to.equal(true);
  });
});
