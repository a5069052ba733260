// Loaded by node before Azurite: connections that wait for a next request are kept for ten minutes.
//
// Azurite's option for it is not looked at (3.35), and after node's five seconds a server that stood still meanwhile closes a connection on which the
// next request has long arrived. A client can't know whether that was done; the service does not do so.
const { Server } = require("http");

const { listen } = Server.prototype;
Server.prototype.listen = function (...where) {
  this.keepAliveTimeout = 600_000;
  return listen.apply(this, where);
};
