// Where Romulus keeps the state of its user: in the tests, a directory of the run, which is gone when it ends. Required
// by .mocharc.json, before any test; children inherit it.

import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const home = path.join(tmpdir(), `romulus-test-state-${process.pid}`);
process.env['XDG_STATE_HOME'] = home;
process.once('exit', () => {
  rmSync(home, { recursive: true, force: true });
});
