// The log: what a line holds, how errors are told, and that the last line before a crash is there.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import { domainLogger } from '../../src/report/log.js';
import { captureLog } from '../support/capture.js';

const LOG_MODULE = new URL('../../src/report/log.js', import.meta.url).href;

/** Runs a module that has `createLogger`, and gives what it wrote. */
async function run(code: string, environment: NodeJS.ProcessEnv = {}) {
  const source = `import { createLogger } from ${JSON.stringify(LOG_MODULE)};\n${code}`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  const written = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (written.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (written.stderr += chunk.toString()));
  const [code_, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { ...written, code: code_, signal };
}

describe('log', () => {
  it('names the domain in each line of its logger', () => {
    const { log, lines } = captureLog();
    domainLogger(log, 'web').warn({ epoch: 7 }, 'late');
    const [line] = lines();
    expect(line).to.include({ level: 'warn', domain: 'web', epoch: 7, msg: 'late' });
    expect(Date.parse(String(line?.['time']))).to.be.closeTo(Date.now(), 60_000);
  });

  it('tells an error with its code, its facts and its causes', () => {
    const { log, lines } = captureLog();
    const cause = Object.assign(new Error('no such file'), { code: 'ENOENT' });
    const error = new RomulusError(
      'BAD_RECORD',
      'a bad record',
      { offset: 2n ** 60n, type: 1, pfn: null },
      { cause },
    );
    log.error({ err: error }, 'stream');
    log.error({ error }, 'the other name');
    log.error({ err: 'thrown text' }, 'no Error at all');
    const [first, second, third] = lines();
    const told = first?.['err'] as Record<string, unknown>;
    expect(told).to.include({ type: 'RomulusError', code: 'BAD_RECORD', message: 'a bad record' });
    expect(told['facts']).to.deep.equal({ offset: (2n ** 60n).toString(), type: 1, pfn: null });
    expect(told['stack']).to.be.a('string');
    expect(told['cause']).to.include({ code: 'ENOENT', message: 'no such file' });
    expect(second?.['error']).to.have.property('code', 'BAD_RECORD');
    expect(third?.['err']).to.equal('thrown text');
  });

  it('survives an error that is its own cause', () => {
    const { log, lines } = captureLog();
    const error = new Error('round');
    error.cause = error;
    log.error({ err: error }, 'and round');
    expect(JSON.stringify(lines()[0])).to.include('and more causes');
  });

  it('leaves out what is below the level', () => {
    const { log, lines } = captureLog({ level: 'warn' });
    log.info('not this');
    log.error('but this');
    expect(lines().map((line) => line['msg'])).to.deep.equal(['but this']);
  });

  /** More at once than a pipe holds, so that its reader has to come to it in between. */
  const MANY = `
    const log = createLogger({ level: 'info', format: 'auto' });
    for (let n = 0; n < 2000; n++) log.info({ n }, 'line');
  `;
  /** As many as a pipe holds. */
  const FEW = MANY.replace('2000', '200');
  for (const [what, code, how, count] of [
    [
      'as many as the pipe takes are out before a SIGKILL',
      FEW + "process.kill(process.pid, 'SIGKILL'); for (;;);",
      'SIGKILL',
      200,
    ],
    ['all are out before an error ends the process', MANY + "throw new Error('the end');", 1, 2000],
    ['all are out before process.exit()', MANY + 'process.exit(7);', 7, 2000],
    ['all are out before the end', MANY, 0, 2000],
  ] as const) {
    it(`writes to standard error only: ${what}`, async () => {
      const { stdout, stderr, signal, code: exitCode } = await run(code);
      expect(signal ?? exitCode).to.equal(how);
      expect(stdout).to.equal('');
      const lines = stderr.split('\n').filter((line) => line.startsWith('{'));
      expect(lines).to.have.length(count);
      expect(JSON.parse(lines.at(-1) ?? '')).to.include({ level: 'info', n: count - 1, msg: 'line' });
    });
  }

  it('writes for people where that is asked for', async () => {
    const { stderr, code } = await run(
      `createLogger({ level: 'info', format: 'pretty' }).child({ domain: 'web' }).warn({ epoch: 3 }, 'late');`,
    );
    expect(code).to.equal(0);
    expect(stderr).to.match(/WARN: \[web\] late\n\s+epoch: 3/);
    expect(stderr).to.not.include('\u001b[');
  });
});
