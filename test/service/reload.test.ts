// Reloads: what is done of many that are asked for, when it is said, and what.

import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { Coalesced } from '../../src/flow/coalesced.js';
import { captureLog, type CapturedLog } from '../support/capture.js';
import { Cleanup } from '../support/cleanup.js';
import { TestPrimary, TestSecondary } from './world.js';

describe('service: reloads', function () {
  this.timeout(20_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  const secret = (letter: string) => letter.repeat(64);
  const said = ({ lines }: CapturedLog) => lines().filter(({ msg }) => String(msg).startsWith('reloaded'));

  /** Both sides, not linked, each with a console, a tap and a token in files. */
  async function sidesOf() {
    const directory = await cleanup.directory();
    const sides = [];
    for (const side of ['primary', 'secondary'] as const) {
      const files = {
        console: `${directory}/${side}-console`,
        tap: `${directory}/${side}-tap`,
        token: `${directory}/${side}-token`,
      };
      writeFileSync(files.token, secret('a'), { mode: 0o600 });
      const captured = captureLog();
      const { log } = captured;
      const output = { console: { file: files.console }, tap: files.tap };
      const file = { token: files.token };
      const host =
        side === 'primary'
          ? new TestPrimary({ output, log, file })
          : new TestSecondary({ port: 0, registers: createMemoryWitness() }, { output, log, file });
      const { service } = host;
      cleanup.add(() => service.stop());
      await host.start();
      sides.push({ side, service, files, captured });
    }
    return sides;
  }

  it('a crowd of them is two: the one that runs, and one for all who came meanwhile', async () => {
    for (const { service, captured } of await sidesOf()) {
      await Promise.all(Array.from({ length: 100 }, () => service.reload()));
      expect(said(captured)).to.have.length(2);
      await service.reload();
      expect(said(captured)).to.have.length(3);
    }
  });

  it('what each waits for began after it was asked for', async () => {
    let started = 0;
    const ends: (() => void)[] = [];
    const work = new Coalesced(() => {
      started++;
      return new Promise((resolve, reject) =>
        ends.push(started === 2 ? () => reject(new Error('the second')) : resolve),
      );
    });
    const outcomes: unknown[] = [];
    const ask = () =>
      void work.run().then(
        () => outcomes.push(started),
        (error: unknown) => outcomes.push(String(error)),
      );
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    ask();
    for (let n = 0; n < 5; n++) ask();
    await turn();
    expect([started, outcomes]).to.deep.equal([1, []]);
    ends[0]?.();
    await turn();
    expect([started, outcomes]).to.deep.equal([2, [1]]);
    ask();
    ends[1]?.();
    await turn();
    expect([started, outcomes.slice(1)]).to.deep.equal([
      3,
      Array.from({ length: 5 }, () => 'Error: the second'),
    ]);
    ends[2]?.();
    await turn();
    ask();
    expect([started, outcomes.slice(6)]).to.deep.equal([4, [3]]);
    ends[3]?.();
    await turn();
    expect(outcomes.slice(7)).to.deep.equal([4]);
  });

  it('it is said when it is done, with what was read: a new token before it', async () => {
    for (const { service, files, captured } of await sidesOf()) {
      writeFileSync(files.token, secret('b'));
      await service.reload();
      const messages = captured.lines().map(({ msg }) => String(msg));
      const [news, end] = [/new token is in use/, /^reloaded: output files .*token/].map((text) =>
        messages.findIndex((message) => text.test(message)),
      );
      expect(news).to.be.greaterThan(-1);
      expect(end).to.be.greaterThan(news ?? -1);
      expect(said(captured)[0]?.['files']).to.have.members(Object.values(files));
    }
  });

  it('what stays as it was is named', async () => {
    for (const { side, service, files, captured } of await sidesOf()) {
      writeFileSync(files.token, 'short');
      renameSync(files.console, `${files.console}.1`);
      mkdirSync(files.console);
      await service.reload();
      const [line, ...more] = said(captured);
      expect(more).to.deep.equal([]);
      expect(line?.['level']).to.equal('warn');
      expect(line?.['files']).to.deep.equal([files.tap]);
      expect(line?.['failed']).to.have.members([files.console, files.token]);
      expect(String(line?.['msg'])).to.include(files.console).and.to.include(files.token);
      // Of the host, which listens, and of the standby, which dials.
      const complaints = captured.lines().filter(({ msg }) => /token in use stays/.test(String(msg)));
      expect(complaints).to.have.length(side === 'primary' ? 1 : 2);
      rmSync(files.token);
      await service.reload();
      expect(said(captured)[1]?.['failed']).to.include(files.token);
    }
  });
});
