'use strict';

// Called once a call, in express's manner: `req.body` is the body as text, `res` sends the answer. It may be async.
// What goes to the console is the log.
module.exports = (req, res) => {
  res.send(`hello ${req.body || 'nobody'}\n`);
};
